/* samples: what a step sees of the inputs. Fresh samples at every step; or minibatches of a training set, without
 * replacement: every epoch goes through the set in an order of its own, and leaves out the last samples where the batch size
 * does not divide their number. And the noise of the labels, and a test set.
 *
 * Everything is a function of (seed, replicate, dimension, input) and of the step, or of the sample's number in its set; the
 * order of an epoch of (seed, replicate, dimension) and the set's size. Sets that are small are kept in memory, of others each
 * sample is drawn again when it is wanted: the same bits. */
#ifndef SGDMAP_SAMPLES_H
#define SGDMAP_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/kernels.h"

struct samples_plan {
    uint64_t seed;
    int64_t replicate;
    int64_t dimension;
    enum input_kind input;
    int64_t batch;
    int64_t data; /* samples of the training set, 0: fresh ones; batch <= data < 2^32 */
    int64_t test; /* of the test set */
    bool noise;   /* samples_noise() will be asked for */
};

struct samples; /* opaque */

/* Errors: ERROR_MEMORY. */
WARN_UNUSED int samples_new(const struct kernels *kernels, const struct samples_plan *plan,
                            struct samples **ret, struct error *err);
void samples_free(struct samples *samples);

/* Is a set kept in memory? 100,000 samples of dimension 280 are. */
static inline bool samples_are_kept(int64_t dimension, int64_t count)
{
    return count <= (INT64_C(256) << 20) / (int64_t)sizeof(double) / dimension;
}

/* The inputs of a step: ret [d][stride], sample fastest: component c of sample n at ret[c * stride + n]. */
void samples_step(struct samples *samples, int64_t step, int64_t stride, double *ret);

/* The noise of the labels of a step in units of its bound: ret [batch], uniform on [-1, 1). A training set's labels have theirs
 * once and for all. */
void samples_noise(struct samples *samples, int64_t step, double *ret);

/* The test set, a piece at a time: [d][SAMPLES_PIECE] as by samples_step(), good until the next call; *count: how many of
 * them there are, 0 after the last piece. */
enum { SAMPLES_PIECE = 256 };
const double *samples_test(struct samples *samples, int64_t piece, int64_t *count);

#endif
