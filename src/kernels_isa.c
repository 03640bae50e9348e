/* The kernels for one instruction set: compiled several times, each with its own flags and KERNELS_SUFFIX. */
#include <math.h>
#include <string.h>

#include <sleef.h>

#include "sgdmap/kernels.h"
#include "vector.h"

/* SLEEF's variants whose bits do not depend on the width: "finz" with fused multiply-add, "cinz" without. */
#if defined __AVX512F__
typedef __m512d native;
#define NATIVE_ATAN Sleef_finz_atand8_u10avx512f
#define NATIVE_SQRT _mm512_sqrt_pd
#elif defined __AVX2__
typedef __m256d native;
#define NATIVE_ATAN Sleef_finz_atand4_u10avx2
#define NATIVE_SQRT _mm256_sqrt_pd
#elif defined __x86_64__
typedef __m128d native;
#define NATIVE_ATAN Sleef_cinz_atand2_u10sse2
#define NATIVE_SQRT _mm_sqrt_pd
#elif defined __aarch64__
typedef float64x2_t native;
#define NATIVE_ATAN Sleef_finz_atand2_u10advsimd
#define NATIVE_SQRT vsqrtq_f64
#else
typedef double native;
#define NATIVE_ATAN Sleef_cinz_atand1_u10purec
#define NATIVE_SQRT sqrt
#endif

/* One call for the platforms whose native type is the vector, two for the last. */
#define MAP(function, x)                                                                                     \
    union {                                                                                                  \
        vector whole;                                                                                        \
        native part[sizeof(vector) / sizeof(native)];                                                        \
    } in = {.whole = (x)}, out;                                                                              \
    for (size_t i = 0; i < sizeof(vector) / sizeof(native); ++i)                                             \
    out.part[i] = function(in.part[i])

INLINE vector vector_atan(vector x)
{
    MAP(NATIVE_ATAN, x);
    return out.whole;
}

INLINE vector vector_sqrt(vector x)
{
    MAP(NATIVE_SQRT, x);
    return out.whole;
}

/* -- The normals ----------------------------------------------------------------------------------- */

/* ln u for normal u > 0, to 2 units in the last place. u = 2^e m with m in [sqrt(1/2), sqrt 2), and ln m = 2 artanh s,
 * s = (m - 1)/(m + 1), whose series to s^23 leaves 1e-18 of it. Narrower in what it takes than a library's, and half its
 * time. */
INLINE vector vector_log(vector u)
{
    const words bits = (words)u;
    const words one = (words)splat(1);
    /* The exponent without a conversion, which AVX2 lacks: in the low bits of 2^52. */
    vector e = (vector)((bits >> 52) | splat_words(UINT64_C(0x433) << 52)) - splat(0x1p52 + 1023);
    vector m = (vector)((bits & splat_words((UINT64_C(1) << 52) - 1)) | one);
    const mask large = m > splat(0x1.6a09e667f3bcdp0);
    m = choose(large, m * splat(0.5), m);
    e += (vector)((mask)one & large);
    const vector f = m - splat(1), s = f / (f + splat(2)), z = s * s;
    vector series = splat(1.0 / 23);
    for (int n = 21; n >= 3; n -= 2)
        series = multiply_add(series, z, splat(1.0 / n));
    const vector twice = s + s;
    const vector small = multiply_add(e, splat(0x1.abc9e3b39803fp-56), twice * z * series);
    return multiply_add(e, splat(0x1.62e42fefa39efp-1), twice) + small;
}

/* cos and sin of 2 pi v for v in [0, 1], to 2 units in the last place of 1. v = q/4 + r with |r| <= 1/8; Taylor's series
 * leave 1e-17. */
INLINE void vector_circle(vector v, vector *cosine, vector *sine)
{
    const vector to_integer = splat(0x1.8p52); /* the sum has the integer in its low bits */
    const vector shifted = multiply_add(v, splat(4), to_integer);
    const words quadrant = (words)shifted;
    const vector r = v - (shifted - to_integer) * splat(0.25);
    const vector x = r * splat(0x1.921fb54442d18p2), x2 = x * x;
    vector s = splat(1.0 / 355687428096000.0), c = splat(1.0 / 20922789888000.0);
    static const double factorials[][2] = {/* of n, n + 1 with the signs of the series */
                                           {-87178291200.0, -1307674368000.0},
                                           {479001600.0, 6227020800.0},
                                           {-3628800.0, -39916800.0},
                                           {40320.0, 362880.0},
                                           {-720.0, -5040.0},
                                           {24.0, 120.0},
                                           {-2.0, -6.0}};
    for (int i = 0; i < 7; ++i) {
        c = multiply_add(c, x2, splat(1 / factorials[i][0]));
        s = multiply_add(s, x2, splat(1 / factorials[i][1]));
    }
    s = multiply_add(s * x2, x, x);
    c = multiply_add(c, x2, splat(1));
    const mask odd = (mask)(splat_words(0) - (quadrant & splat_words(1)));
    const words sine_sign = (quadrant & splat_words(2)) << 62;
    const words cosine_sign = ((quadrant + splat_words(1)) & splat_words(2)) << 62;
    *cosine = (vector)((words)choose(odd, s, c) ^ cosine_sign);
    *sine = (vector)((words)choose(odd, c, s) ^ sine_sign);
}

/* The 64-bit products of the lanes' low halves; what stands in the high halves does not matter. */
INLINE words multiply_low_halves(words a, words b)
{
#if defined __AVX512F__
    return (words)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined __AVX2__
    return (words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined __x86_64__
    return (words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

/* Philox 4x32-10 (Salmon et al. 2011) in the low halves of 64-bit lanes: the product needs 64 bits anyway,
 * and the high halves may hold anything until the end. tests/test_rng.c holds it against Random123's own. */
INLINE void philox(words counter[4], uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; ++round) {
        words product0 = multiply_low_halves(counter[0], splat_words(0xD2511F53));
        words product1 = multiply_low_halves(counter[2], splat_words(0xCD9E8D57));
        counter[0] = (product1 >> 32) ^ counter[1] ^ splat_words(key0);
        counter[1] = product1;
        counter[2] = (product0 >> 32) ^ counter[3] ^ splat_words(key1);
        counter[3] = product0;
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

/* One variate of each of the words, of a law other than the normal. */
INLINE vector variate(const enum kernels_law law, words w)
{
    const vector unit = (vector)((w >> 12) | (words)splat(1.0)); /* [1, 2) */
    if (law == KERNELS_LAPLACE)
        return (vector)((words)(vector_log(splat(2) - unit) * splat(-0x1.6a09e667f3bcdp-1)) | (w << 63));
    if (law == KERNELS_UNIFORM)
        return multiply_add(unit, splat(2), splat(-3)) * splat(0x1.bb67ae8584caap0);
    return (vector)((w & splat_words(UINT64_C(1) << 63)) | (words)splat(1.0));
}

INLINE void draw(const enum kernels_law law, uint32_t key0, uint32_t key1, uint64_t step, int64_t first_chunk,
                 int64_t chunk_count, double *ret)
{
    const words low = splat_words(0xffffffff);
    /* 52 random bits under the exponent of 1: a uniform of [1, 2) without a conversion, which AVX2 lacks. */
    const words one = (words)splat(1.0);
    for (int64_t i = 0; i < PARTS * chunk_count; ++i) {
        words counter[4] = {(words)count_from(KERNELS_LANES * first_chunk + WIDTH * i), splat_words(0),
                            splat_words(step & 0xffffffff), splat_words(step >> 32)};
        philox(counter, key0, key1);
        words first = (counter[0] & low) | (counter[1] << 32);
        words second = (counter[2] & low) | (counter[3] << 32);
        double *sixteen = ret + i / PARTS * (2 * KERNELS_LANES) + i % PARTS * WIDTH;
        if (law != KERNELS_NORMAL) {
            store(sixteen, variate(law, first));
            store(sixteen + KERNELS_LANES, variate(law, second));
            continue;
        }
        vector u = splat(2) - (vector)((first >> 12) | one);  /* (0, 1] */
        vector v = (vector)((second >> 12) | one) - splat(1); /* [0, 1) */
        /* Box & Muller 1958 */
        vector radius = vector_sqrt(splat(-2) * vector_log(u));
        vector sine, cosine;
        vector_circle(v, &cosine, &sine);
        store(sixteen, radius * cosine);
        store(sixteen + KERNELS_LANES, radius * sine);
    }
}

/* Compiled once a law. */
static void variates(enum kernels_law law, uint32_t key0, uint32_t key1, uint64_t step, int64_t first_chunk,
                     int64_t chunk_count, double *ret)
{
    switch (law) {
    case KERNELS_NORMAL:
        draw(KERNELS_NORMAL, key0, key1, step, first_chunk, chunk_count, ret);
        break;
    case KERNELS_LAPLACE:
        draw(KERNELS_LAPLACE, key0, key1, step, first_chunk, chunk_count, ret);
        break;
    case KERNELS_UNIFORM:
        draw(KERNELS_UNIFORM, key0, key1, step, first_chunk, chunk_count, ret);
        break;
    default:
        draw(KERNELS_RADEMACHER, key0, key1, step, first_chunk, chunk_count, ret);
    }
}

/* Four vectors of samples at a time, so that four sums are under way; the columns of such a block stay in L1
 * for the second pass. */
static void gate(int64_t batch, int64_t columns, int64_t stride, double factor, const double *target,
                 double *z, double *residual)
{
    enum { UNROLL = 4 };
    int64_t n = 0;
    for (; n + UNROLL * WIDTH <= batch; n += UNROLL * WIDTH) {
        vector sum[UNROLL] = {splat(0), splat(0), splat(0), splat(0)};
        for (int64_t j = 0; j < columns; ++j)
            for (int u = 0; u < UNROLL; ++u)
                sum[u] += positive(load(z + j * stride + n + u * WIDTH));
        for (int u = 0; u < UNROLL; ++u) {
            sum[u] -= load(target + n + u * WIDTH);
            store(residual + n + u * WIDTH, sum[u]);
            sum[u] *= splat(factor);
        }
        for (int64_t j = 0; j < columns; ++j)
            for (int u = 0; u < UNROLL; ++u) {
                double *x = z + j * stride + n + u * WIDTH;
                store(x, (vector)((mask)sum[u] & (load(x) > splat(0))));
            }
    }
    for (; n + WIDTH <= batch; n += WIDTH) {
        vector sum = splat(0);
        for (int64_t j = 0; j < columns; ++j)
            sum += positive(load(z + j * stride + n));
        sum -= load(target + n);
        store(residual + n, sum);
        sum *= splat(factor);
        for (int64_t j = 0; j < columns; ++j) {
            double *x = z + j * stride + n;
            store(x, (vector)((mask)sum & (load(x) > splat(0))));
        }
    }
    for (; n < batch; ++n) {
        double sum = 0;
        for (int64_t j = 0; j < columns; ++j)
            sum += z[j * stride + n] > 0 ? z[j * stride + n] : 0;
        sum -= target[n];
        residual[n] = sum;
        sum *= factor;
        for (int64_t j = 0; j < columns; ++j)
            z[j * stride + n] = z[j * stride + n] > 0 ? sum : 0;
    }
}

static void relu_sum(int64_t batch, int64_t columns, int64_t stride, const double *z, double *ret)
{
    int64_t n = 0;
    for (; n + WIDTH <= batch; n += WIDTH) {
        vector sum = splat(0);
        for (int64_t j = 0; j < columns; ++j)
            sum += positive(load(z + j * stride + n));
        store(ret + n, sum);
    }
    for (; n < batch; ++n) {
        double sum = 0;
        for (int64_t j = 0; j < columns; ++j)
            sum += z[j * stride + n] > 0 ? z[j * stride + n] : 0;
        ret[n] = sum;
    }
}

/* Eight interleaved sums, added up in an order that does not depend on WIDTH. */
INLINE double total(const vector sum[PARTS])
{
    double v[KERNELS_LANES];
    memcpy(v, sum, sizeof v);
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

static double squared_distance(int64_t n, const double *a, const double *b)
{
    vector sum[2][PARTS] = {0};
    int64_t i = 0;
    for (; i + 2 * KERNELS_LANES <= n; i += 2 * KERNELS_LANES)
        for (int half = 0; half < 2; ++half)
            for (int part = 0; part < PARTS; ++part) {
                int64_t at = i + half * KERNELS_LANES + part * WIDTH;
                vector x = load(a + at) - load(b + at);
                sum[half][part] += x * x;
            }
    double rest = 0;
    for (; i < n; ++i)
        rest += (a[i] - b[i]) * (a[i] - b[i]);
    return total(sum[0]) + total(sum[1]) + rest;
}

static double dot(int64_t n, const double *x, const double *y)
{
    vector sum[PARTS] = {0};
    int64_t i = 0;
    for (; i + KERNELS_LANES <= n; i += KERNELS_LANES)
        for (int part = 0; part < PARTS; ++part)
            sum[part] += load(x + i + part * WIDTH) * load(y + i + part * WIDTH);
    double rest = 0;
    for (; i < n; ++i)
        rest += x[i] * y[i];
    return total(sum) + rest;
}

/* Four vectors of y at a time in registers. */
static void combine(int64_t n, int64_t count, const double *a, const double *x, double *y)
{
    enum { UNROLL = 4 };
    int64_t i = 0;
    for (; i + UNROLL * WIDTH <= n; i += UNROLL * WIDTH) {
        vector sum[UNROLL];
        for (int u = 0; u < UNROLL; ++u)
            sum[u] = load(y + i + u * WIDTH);
        for (int64_t j = 0; j < count; ++j)
            for (int u = 0; u < UNROLL; ++u)
                sum[u] += splat(x[j]) * load(a + j * n + i + u * WIDTH);
        for (int u = 0; u < UNROLL; ++u)
            store(y + i + u * WIDTH, sum[u]);
    }
    for (; i < n; i += WIDTH) {
        vector sum = load(y + i);
        for (int64_t j = 0; j < count; ++j)
            sum += splat(x[j]) * load(a + j * n + i);
        store(y + i, sum);
    }
}

static void project(int64_t n, int64_t count, const double *a, const double *x, double *y)
{
    for (int64_t j = 0; j < count; ++j)
        y[j] = dot(n, a + j * n, x);
}

/* ROWS vectors of COLUMNS columns of y in registers. */
INLINE void multiply_tile(const int rows, const int columns, int64_t n, int64_t count, const double *a,
                          int64_t stride, const double *x, bool add, double *y)
{
    enum { ROWS_MAX = 4, COLUMNS_MAX = 4 };
    vector sum[ROWS_MAX][COLUMNS_MAX];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j)
            sum[r][j] = add ? load(y + j * n + r * WIDTH) : splat(0);
    for (int64_t k = 0; k < count; ++k)
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j) {
            const vector factor = splat(x[j * stride + k]);
#pragma GCC unroll 4
            for (int r = 0; r < rows; ++r)
                sum[r][j] = multiply_add(load(a + k * n + r * WIDTH), factor, sum[r][j]);
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j)
            store(y + j * n + r * WIDTH, sum[r][j]);
}

INLINE void multiply_columns(const int columns, int64_t n, int64_t count, const double *a, int64_t stride,
                             const double *x, bool add, double *y)
{
    int64_t i = 0;
    for (; i + 4 * WIDTH <= n; i += 4 * WIDTH)
        multiply_tile(4, columns, n, count, a + i, stride, x, add, y + i);
    if (i + 2 * WIDTH <= n) {
        multiply_tile(2, columns, n, count, a + i, stride, x, add, y + i);
        i += 2 * WIDTH;
    }
    if (i < n)
        multiply_tile(1, columns, n, count, a + i, stride, x, add, y + i);
}

static void multiply(int64_t n, int64_t columns, int64_t count, const double *a, int64_t stride,
                     const double *x, bool add, double *y)
{
    int64_t j = 0;
    for (; j + 4 <= columns; j += 4)
        multiply_columns(4, n, count, a, stride, x + j * stride, add, y + j * n);
    for (; j < columns; ++j)
        multiply_columns(1, n, count, a, stride, x + j * stride, add, y + j * n);
}

/* sin x - x: the series where the difference would cancel, else from the sine. */
INLINE vector sine_minus_angle(vector x, vector sine)
{
    vector x2 = x * x;
    /* Taylor to x^15/15!: at |x| = 1 the next term is 3e-15 of the first. */
    vector series = splat(-1.0 / 1307674368000.0);
    series = series * x2 + splat(1.0 / 6227020800.0);
    series = series * x2 - splat(1.0 / 39916800.0);
    series = series * x2 + splat(1.0 / 362880.0);
    series = series * x2 - splat(1.0 / 5040.0);
    series = series * x2 + splat(1.0 / 120.0);
    series = series * x2 - splat(1.0 / 6.0);
    return choose((x2 < splat(1)), series * x2 * x, sine - x);
}

INLINE void add_pairs(const bool gradient_only, struct kernels_pairs *p)
{
    const double pi = 0x1.921fb54442d18p1;
    const vector one = splat(1), two = splat(2);
    const vector norm_a = splat(p->column_student_norm), norm_b = splat(p->column_teacher_norm);
    const vector scale_b = splat(p->column_teacher_scale), scale_a = splat(p->column_student_scale);
    const vector relative = splat(p->column_norm_difference) * scale_b;
    const vector column_versine = splat(p->column_one_minus_cosine);
    vector sine_sum[PARTS] = {0}, correction_sum[PARTS] = {0};
    p->careful_count = 0;
    for (int64_t i = 0; i < p->dimension; i += WIDTH) {
        const vector norm_bi = load(p->teacher_norm + i), scale_bi = load(p->teacher_scale + i);
        const vector difference = load(p->norm_difference + i);
        const vector gram = load(p->teacher_gram + i);
        const vector b_delta = load(p->teacher_delta + i), delta_a = load(p->delta_student + i);
        const vector c_bb = load(p->teacher_cosine + i), s_bb = load(p->teacher_sine + i);
        const vector b_a = gram + b_delta, a_a = b_a + delta_a;
        const vector scale_ba = scale_bi * scale_a, scale_aa = load(p->student_scale + i) * scale_a;
        const vector c_ba = b_a * scale_ba, c_aa = a_a * scale_aa;
        const vector s_ba = vector_sqrt(positive((one - c_ba) * (one + c_ba)));
        const vector s_aa = vector_sqrt(positive((one - c_aa) * (one + c_aa)));
        const vector change2 = (b_delta - gram * relative) * scale_ba;
        const vector change1 = (delta_a - b_a * (difference * scale_bi)) * scale_aa;
        const vector sines2 = s_ba + s_bb, sines1 = s_aa + s_ba;
        /* One division for two; where a sine is small the pair is a careful one. */
        const vector inverse = one / (sines1 * sines2);
        const vector t2 = -change2 * (inverse * sines1), t1 = -change1 * (inverse * sines2);
        const vector e2 = two * vector_atan(t2), e1 = two * vector_atan(t1);
        const vector angle_aa = load(p->teacher_angle + i) + e2 + e1;

        /* A column of norm 0 makes the angle NaN. */
        const vector limit = splat(0.1);
        const mask outside = count_from(i) >= p->dimension;
        const mask careful = ((sines2 < limit) | (sines1 < limit) | (angle_aa != angle_aa)) & ~outside;
        const mask left_out = careful | outside;

        const vector sine_term = difference * s_aa + norm_bi * t1 * (c_aa + c_ba);
        store(p->angle_complement + i, splat(pi) - angle_aa);
        store(p->angle_difference + i, e1);
        sine_sum[i / WIDTH % PARTS] += choose(left_out, splat(0), sine_term);
        for (unsigned lanes = lanes_of(careful); lanes != 0; lanes &= lanes - 1)
            p->careful[p->careful_count++] = i + __builtin_ctz(lanes);
        if (gradient_only)
            continue;

        const vector p1 = one + t1 * t1, p2 = one + t2 * t2, q = one / (p1 * p2), q1 = q * p2, q2 = q * p1;
        const vector sin1 = two * t1 * q1, sin2 = two * t2 * q2;
        const vector versine1 = two * t1 * t1 * q1, versine2 = two * t2 * t2 * q2;
        const vector student_term = norm_a * (c_ba * sine_minus_angle(e1, sin1) - s_ba * versine1 -
                                              s_aa * load(p->one_minus_cosine + i));
        const vector teacher_term =
            norm_b * (c_bb * sine_minus_angle(e2, sin2) - s_bb * versine2 - s_ba * column_versine);
        const vector correction = norm_bi * (student_term - teacher_term);

        correction_sum[i / WIDTH % PARTS] += choose(left_out, splat(0), correction);
    }
    p->sine_sum = total(sine_sum);
    p->correction_sum = total(correction_sum);
}

static void pairs(struct kernels_pairs *p)
{
    if (p->gradient_only)
        add_pairs(true, p);
    else
        add_pairs(false, p);
}

extern const struct kernels_fused CONCATENATE(kernels_fused_, KERNELS_SUFFIX);
extern const struct kernels CONCATENATE(kernels_, KERNELS_SUFFIX);

#define STRING_(x) #x
#define STRING(x) STRING_(x)
const struct kernels CONCATENATE(kernels_, KERNELS_SUFFIX) = {
    .name = STRING(KERNELS_SUFFIX),
    .fused = &CONCATENATE(kernels_fused_, KERNELS_SUFFIX),
    .variates = variates,
    .gate = gate,
    .relu_sum = relu_sum,
    .squared_distance = squared_distance,
    .pairs = pairs,
    .dot = dot,
    .combine = combine,
    .project = project,
    .multiply = multiply,
};
