/* rng: counter-based streams of random variates. A stream is a pure function of its key, so that a number can be had
 * without those before it, by any rank, in any order. */
#ifndef SGDMAP_RNG_H
#define SGDMAP_RNG_H

#include <stdint.h>

#include "sgdmap/kernels.h"

/* What a stream is for: streams of different purpose are independent. The values are part of the file format:
 * results are reproduced from them. */
enum rng_purpose { RNG_INPUT_GAUSSIAN = 0, RNG_TEACHER = 16, RNG_INITIAL = 17, RNG_SPECTRAL = 18 };

struct rng_key {
    uint32_t word[2];
};

/* The key of a stream: 64 bits of Philox 4x32-10 of (purpose, dimension, replicate) under `seed`. */
struct rng_key rng_key(uint64_t seed, int64_t replicate, int64_t dimension, enum rng_purpose purpose);

/* The first `count` standard normals of the stream at `step`: ret [rng_padded(count)], 64-byte aligned.
 * Element i does not depend on count. */
void rng_normals(const struct kernels *kernels, struct rng_key key, uint64_t step, int64_t count,
                 double *ret);

/* The same of another law. */
void rng_variates(const struct kernels *kernels, enum kernels_law law, struct rng_key key, uint64_t step,
                  int64_t count, double *ret);

/* count rounded up to whole chunks of sixteen. */
int64_t rng_padded(int64_t count);

#endif
