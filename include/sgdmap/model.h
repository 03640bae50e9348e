/* model: what is trained. f(x) = sum_j ReLU(a_j' x), two layers with the second one fixed (Li & Yuan 2017,
 * section 2).
 *
 * Student and teacher are held as their effective columns, [d][d] column-major, neuron j's vector contiguous:
 * b_j = e_j + w*_j, and a_j = e_j + w_j with the identity link, w_j without. */
#ifndef SGDMAP_MODEL_H
#define SGDMAP_MODEL_H

#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/kernels.h"
#include "sgdmap/rng.h"

/* The direction of a replicate's teachers at one dimension, of spectral norm 1, and its students' first weights, N(0, 1/d): every
 * setting that shares them scales the same two matrices. All kinds of teachers are made of the same N(0,1) stream, column after
 * column of M: orthogonal is the factor Q of M = Q R with R's diagonal positive; low_rank is U V'/||U V'||_2, U [d][rank] first in
 * the stream and V [d][rank] next; diagonal has the first d entries over the largest of them.
 * ret [rng_padded(d * d)], workspace [model_workspace(d)]. */
void model_teacher_direction(const struct kernels *kernels, uint64_t seed, int64_t replicate,
                             int64_t dimension, enum teacher_kind kind, int64_t rank, double *ret,
                             double *workspace);
void model_initial_direction(const struct kernels *kernels, uint64_t seed, int64_t replicate,
                             int64_t dimension, double *ret);
int64_t model_workspace(int64_t dimension);

/* In place: ret [d][d] = I + teacher_norm times the direction. */
void model_teacher(int64_t dimension, double teacher_norm, double *ret);

/* ret [d][d] = (I +) init_scale W_0 */
void model_student(const double *initial, int64_t dimension, double init_scale, enum link_kind link,
                   double *ret);

/* Samples of the stream of a key at `step`: sample n stands at ret + n * model_pitch(input, d), whatever `count`.
 * ret [rng_padded(count * model_pitch(input, d))] */
int64_t model_pitch(enum input_kind input, int64_t dimension);
void model_inputs(const struct kernels *kernels, struct rng_key key, int64_t dimension, enum input_kind input,
                  int64_t step, int64_t count, double *ret);

#endif
