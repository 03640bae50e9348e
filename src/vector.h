/* vector: the vectors of one instruction set, for the sources that are compiled once for each.
 * A private header: KERNELS_SUFFIX and the compiler's flags say which. */
#ifndef SGDMAP_VECTOR_H
#define SGDMAP_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined __x86_64__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

#include "sgdmap/kernels.h"

#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)

/* The machine's own width: GCC splits wider vectors into scalars where it should split them into halves. */
#if defined __AVX512F__
enum { WIDTH = 8 };
#elif defined __AVX2__
enum { WIDTH = 4 };
#else
enum { WIDTH = 2 };
#endif
enum { PARTS = KERNELS_LANES / WIDTH };

typedef double vector __attribute__((vector_size(8 * WIDTH)));
typedef int64_t mask __attribute__((vector_size(8 * WIDTH)));
typedef uint64_t words __attribute__((vector_size(8 * WIDTH)));

#define INLINE static inline __attribute__((always_inline))

INLINE vector splat(double x)
{
    return x - (vector){0};
}

INLINE words splat_words(uint64_t x)
{
    return x - (words){0};
}

/* first, first + 1, … */
INLINE mask count_from(int64_t first)
{
    mask lanes = {0};
    for (int lane = 0; lane < WIDTH; ++lane)
        lanes[lane] = first + lane;
    return lanes;
}

INLINE vector load(const double *x)
{
    vector v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(double *x, vector v)
{
    memcpy(x, &v, sizeof v);
}

INLINE vector positive(vector x)
{
    return (vector)((mask)x & (x > splat(0)));
}

INLINE vector choose(mask condition, vector yes, vector no)
{
    return (vector)(((mask)yes & condition) | ((mask)no & ~condition));
}

/* Bit l for lane l. */
INLINE unsigned lanes_of(mask condition)
{
#if defined __AVX512DQ__
    return _mm512_movepi64_mask((__m512i)condition);
#elif defined __AVX2__
    return (unsigned)_mm256_movemask_pd((__m256d)condition);
#else
    unsigned lanes = 0;
    for (int lane = 0; lane < WIDTH; ++lane)
        lanes |= (condition[lane] != 0 ? 1u : 0u) << lane;
    return lanes;
#endif
}

/* a b + c, rounded once wherever the machine can (baseline x86-64 cannot). */
INLINE vector multiply_add(vector a, vector b, vector c)
{
#if defined __AVX512F__
    return _mm512_fmadd_pd(a, b, c);
#elif defined __AVX2__
    return _mm256_fmadd_pd(a, b, c);
#elif defined __aarch64__
    return vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

#endif
