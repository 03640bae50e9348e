#include "sgdmap/linalg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* BLIS defines static functions in its header that warn under ours. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <blis.h>
#pragma GCC diagnostic pop

/* Neither found nor set by the user: what BLIS itself would take is right. */
enum { FAMILY_OF_BLIS = -1 };

static int family_for_this_cpu(enum linalg_preference preference)
{
#if defined __x86_64__
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    /* The families of AMD that BLIS 0.9 knows by name; Intel's it knows by their features. */
    bool known = __builtin_cpu_is("znver1") || __builtin_cpu_is("znver2") || __builtin_cpu_is("znver3") ||
                 __builtin_cpu_is("intel");
#if defined BLIS_CONFIG_SKX
    if (avx512 && preference == LINALG_WIDE)
        return BLIS_ARCH_SKX;
#endif
#if defined BLIS_CONFIG_HASWELL
    if (avx2 && (!known || (avx512 && preference == LINALG_NARROW)))
        return BLIS_ARCH_HASWELL;
#endif
    (void)avx2;
    (void)avx512;
    (void)known;
#endif
    (void)preference;
    return FAMILY_OF_BLIS;
}

void linalg_setup(enum linalg_preference preference)
{
    /* One thread a rank whatever BLIS was built with: the ranks are the parallelism. */
    setenv("BLIS_NUM_THREADS", "1", 1);
    int family = family_for_this_cpu(preference);
    if (family != FAMILY_OF_BLIS) {
        char number[16];
        snprintf(number, sizeof number, "%d", family);
        setenv("BLIS_ARCH_TYPE", number, 0);
    }
    bli_init();
}

const char *linalg_kernel_family(void)
{
    return bli_arch_string(bli_arch_query_id());
}

bool linalg_is_generic(void)
{
    return bli_arch_query_id() == BLIS_ARCH_GENERIC;
}

const char *linalg_version(void)
{
    return bli_info_get_version_str();
}

void linalg_product(enum linalg_transpose transpose, int64_t m, int64_t n, int64_t k, const double *a,
                    int64_t lda, const double *b, int64_t ldb, double beta, double *c, int64_t ldc)
{
    double one = 1;
    /* BLIS's prototypes lack const; it does not write to a and b. */
    union {
        const double *in;
        double *out;
    } a_ = {.in = a}, b_ = {.in = b};
    bli_dgemm(transpose == LINALG_TRANSPOSED ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k,
              &one, a_.out, 1, lda, b_.out, 1, ldb, &beta, c, 1, ldc);
}

double *linalg_new(int64_t count)
{
    if (count < 0 || count > (int64_t)(SIZE_MAX / 4 / sizeof(double)))
        return NULL;
    size_t bytes = ((size_t)count * sizeof(double) + 63) / 64 * 64;
    double *memory = aligned_alloc(64, bytes > 0 ? bytes : 64);
    if (memory != NULL)
        memset(memory, 0, bytes > 0 ? bytes : 64);
    return memory;
}

/* -- Spectral norm --------------------------------------------------------------------------------- */

/* Steps between restarts: the memory is this many vectors. */
enum { LANCZOS_STEPS = 160, LANCZOS_CHECK = 8, LANCZOS_RESTARTS = 64 };

int64_t linalg_spectral_workspace(int64_t dimension)
{
    int64_t steps = dimension < LANCZOS_STEPS ? dimension : LANCZOS_STEPS;
    return dimension * (steps + 3);
}

/* y = a' (a x) through t [d]. BLIS's call costs more than the product itself where the matrix is small. */
static void apply_gram(int64_t d, const double *a, int64_t lda, const double *x, double *t, double *y)
{
    if (d >= 48) {
        double one = 1, zero = 0;
        union {
            const double *in;
            double *out;
        } a_ = {.in = a}, x_ = {.in = x};
        bli_dgemv(BLIS_NO_TRANSPOSE, BLIS_NO_CONJUGATE, d, d, &one, a_.out, 1, lda, x_.out, 1, &zero, t, 1);
        bli_dgemv(BLIS_TRANSPOSE, BLIS_NO_CONJUGATE, d, d, &one, a_.out, 1, lda, t, 1, &zero, y, 1);
        return;
    }
    memset(t, 0, (size_t)d * sizeof *t);
    for (int64_t j = 0; j < d; ++j)
        for (int64_t i = 0; i < d; ++i)
            t[i] += a[i + j * lda] * x[j];
    for (int64_t j = 0; j < d; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < d; ++i)
            sum += a[i + j * lda] * t[i];
        y[j] = sum;
    }
}

double linalg_dot(int64_t n, const double *x, const double *y)
{
    double sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int l = 0; l < 4; ++l)
            sum[l] += x[i + l] * y[i + l];
    for (; i < n; ++i)
        sum[0] += x[i] * y[i];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* Is an eigenvalue of the tridiagonal matrix above x? Sylvester's law: as many as there are positive pivots.
 */
static bool eigenvalue_above(int64_t m, const double *alpha, const double *beta, double x)
{
    double pivot = alpha[0] - x;
    for (int64_t k = 1; pivot < 0 && k < m; ++k)
        pivot = alpha[k] - x - beta[k - 1] * beta[k - 1] / pivot;
    return pivot >= 0;
}

/* The largest eigenvalue of the tridiagonal matrix, by bisection to the last digit; `low` is below it. */
static double top_eigenvalue(int64_t m, const double *alpha, const double *beta, double low)
{
    double high = low;
    for (int64_t k = 0; k < m; ++k) {
        double bound = alpha[k] + (k > 0 ? beta[k - 1] : 0) + (k + 1 < m ? beta[k] : 0);
        high = bound > high ? bound : high;
        low = alpha[k] > low ? alpha[k] : low;
    }
    while (true) {
        double middle = low + (high - low) / 2;
        if (!(middle > low && middle < high) || high - low <= 0x1p-51 * high)
            return middle;
        if (eigenvalue_above(m, alpha, beta, middle))
            low = middle;
        else
            high = middle;
    }
}

/* The eigenvector of `top` as s [m], of length one. From its end backwards, the direction in which it grows.
 */
static void top_eigenvector(int64_t m, const double *alpha, const double *beta, double top, double *s)
{
    double squares = 1;
    s[m - 1] = 1;
    for (int64_t k = m - 1; k > 0; --k) {
        s[k - 1] = ((top - alpha[k]) * s[k] - (k + 1 < m ? beta[k] * s[k + 1] : 0)) / beta[k - 1];
        squares += s[k - 1] * s[k - 1];
        if (squares > 1e200) {
            for (int64_t i = k - 1; i < m; ++i)
                s[i] *= 1e-100;
            squares *= 1e-200;
        }
    }
    double scale = 1 / sqrt(squares);
    for (int64_t k = 0; k < m; ++k)
        s[k] *= scale;
}

double linalg_spectral_norm(int64_t dimension, const double *a, int64_t lda, double *workspace)
{
    const int64_t d = dimension;
    const int64_t steps = d < LANCZOS_STEPS ? d : LANCZOS_STEPS;
    double largest = 0, sum = 0;
    for (int64_t j = 0; j < d; ++j)
        for (int64_t i = 0; i < d; ++i) {
            double x = fabs(a[i + j * lda]);
            largest = x > largest ? x : largest;
            sum += x * 0;
        }
    if (sum != 0) /* inf or NaN times 0 */
        return NAN;
    /* Squares must neither overflow nor vanish. */
    if (largest == 0)
        return 0;
    if (largest > 1e120 || largest < 1e-120) {
        double *scaled = linalg_new(d * d);
        if (scaled == NULL)
            return NAN;
        for (int64_t j = 0; j < d; ++j)
            for (int64_t i = 0; i < d; ++i)
                scaled[i + j * d] = a[i + j * lda] / largest;
        double norm = linalg_spectral_norm(d, scaled, d, workspace) * largest;
        free(scaled);
        return norm;
    }

    double *basis = workspace, *t = basis + d * steps, *next = t + d;
    double *ritz = next + d;
    double alpha[LANCZOS_STEPS], beta[LANCZOS_STEPS], s[LANCZOS_STEPS];
    double top = 0;
    /* Any vector that no structure of `a` is orthogonal to: the fractional parts of multiples of the golden
     * ratio. */
    for (int64_t i = 0; i < d; ++i)
        ritz[i] = 0.5 + fmod((double)(i + 1) * 0.61803398874989484820, 1.0);
    for (int restart = 0; restart < LANCZOS_RESTARTS; ++restart) {
        double length = sqrt(linalg_dot(d, ritz, ritz));
        for (int64_t i = 0; i < d; ++i)
            basis[i] = ritz[i] / length;
        int64_t m = 0;
        while (true) {
            double *q = basis + m * d;
            apply_gram(d, a, lda, q, t, next);
            alpha[m] = linalg_dot(d, q, next);
            /* Twice is enough (Parlett). */
            for (int pass = 0; pass < 2; ++pass)
                for (int64_t k = m; k >= 0; --k) {
                    double overlap = linalg_dot(d, basis + k * d, next);
                    for (int64_t i = 0; i < d; ++i)
                        next[i] -= overlap * basis[k * d + i];
                }
            beta[m] = sqrt(linalg_dot(d, next, next));
            ++m;
            bool exhausted = m == d || beta[m - 1] <= 1e-15 * (top > alpha[0] ? top : alpha[0]);
            if (exhausted || m == steps || m % LANCZOS_CHECK == 0) {
                top = top_eigenvalue(m, alpha, beta, top * (1 - 1e-12));
                if (exhausted)
                    return sqrt(top);
                top_eigenvector(m, alpha, beta, top, s);
                if (beta[m - 1] * fabs(s[m - 1]) <= 1e-10 * top)
                    return sqrt(top);
                if (m == steps)
                    break;
            }
            for (int64_t i = 0; i < d; ++i)
                basis[m * d + i] = next[i] / beta[m - 1];
        }
        memset(ritz, 0, (size_t)d * sizeof *ritz);
        for (int64_t k = 0; k < m; ++k)
            for (int64_t i = 0; i < d; ++i)
                ritz[i] += s[k] * basis[k * d + i];
    }
    return sqrt(top); /* the Ritz value's error is far below the residual's bound even here */
}
