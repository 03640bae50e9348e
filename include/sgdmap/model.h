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

/* The directions of a replicate at one dimension; every setting that shares both scales the same two
 * matrices. */
struct model_directions {
    double *teacher; /* [d][d] M/||M||_2, M with N(0,1) entries */
    double *initial; /* [d][d] N(0, 1/d) entries */
};

/* Fills the caller's arrays of rng_padded(d * d) doubles; workspace [linalg_spectral_workspace(d)]. */
void model_directions(const struct kernels *kernels, uint64_t seed, int64_t replicate, int64_t dimension,
                      struct model_directions *ret, double *workspace);

/* ret [d][d] = I + teacher_norm M/||M||_2 */
void model_teacher(const struct model_directions *directions, int64_t dimension, double teacher_norm,
                   double *ret);

/* ret [d][d] = (I +) init_scale W_0 */
void model_student(const struct model_directions *directions, int64_t dimension, double init_scale,
                   enum link_kind link, double *ret);

/* The inputs of one step: ret [d][stride], sample fastest: component c of sample n at ret[c * stride + n],
 * batch <= stride. Sample n is a function of (seed, replicate, d, input, step, n) alone, whatever the batch.
 * scratch [model_inputs_scratch(d, batch)]. */
int64_t model_inputs_scratch(int64_t dimension, int64_t batch);
void model_inputs(const struct kernels *kernels, uint64_t seed, int64_t replicate, int64_t dimension,
                  enum input_kind input, int64_t step, int64_t batch, int64_t stride, double *scratch,
                  double *ret);

#endif
