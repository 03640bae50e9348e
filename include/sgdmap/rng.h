/* rng: counter-based streams of random variates. A stream is a pure function of its key, so that a number can be had
 * without those before it, by any rank, in any order. */
#ifndef SGDMAP_RNG_H
#define SGDMAP_RNG_H

#include <stdint.h>

#include "sgdmap/kernels.h"

/* What a stream is for: streams of different purpose are independent. The values are part of the file format:
 * results are reproduced from them. */
enum rng_purpose {
    RNG_INPUT = 0, /* and an enum input_kind */
    RNG_TEACHER = 16,
    RNG_INITIAL = 17,
    RNG_NOISE = 18,      /* of fresh labels */
    RNG_DATA_NOISE = 19, /* of a training set's */
    RNG_SHUFFLE = 20,
    RNG_DATA = 32, /* and an enum input_kind */
    RNG_TEST = 48, /* likewise */
};

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

/* ret [count]: a permutation of 0 … count - 1, all equally likely but for 2^-32: Fisher and Yates's (Knuth, TAOCP 2,
 * algorithm 3.4.2P) from the last element down, whose i-th drawn word w, 64 bits of Philox at counter {i/2, 0, step low,
 * step high}, picks w * (rest of them) / 2^64. count < 2^32. */
void rng_permutation(struct rng_key key, uint64_t step, int64_t count, uint32_t *ret);

/* count rounded up to whole chunks of sixteen. */
int64_t rng_padded(int64_t count);

#endif
