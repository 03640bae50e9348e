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

static int family_for_this_cpu(void)
{
#if defined __x86_64__
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    /* The families of AMD that BLIS 0.9 knows by name; Intel's it knows by their features. */
    bool known = __builtin_cpu_is("znver1") || __builtin_cpu_is("znver2") || __builtin_cpu_is("znver3") ||
                 __builtin_cpu_is("intel");
#if defined BLIS_CONFIG_SKX
    if (avx512)
        return BLIS_ARCH_SKX;
#endif
#if defined BLIS_CONFIG_HASWELL
    if (avx2 && !known)
        return BLIS_ARCH_HASWELL;
#endif
    (void)avx2;
    (void)avx512;
    (void)known;
#endif
    return FAMILY_OF_BLIS;
}

/* Is this text the number of a family that this BLIS has? */
static bool is_family(const char *text)
{
    static const int families[] = {
#if defined BLIS_CONFIG_SKX
        BLIS_ARCH_SKX,
#endif
#if defined BLIS_CONFIG_KNL
        BLIS_ARCH_KNL,
#endif
#if defined BLIS_CONFIG_HASWELL
        BLIS_ARCH_HASWELL,
#endif
#if defined BLIS_CONFIG_SANDYBRIDGE
        BLIS_ARCH_SANDYBRIDGE,
#endif
#if defined BLIS_CONFIG_PENRYN
        BLIS_ARCH_PENRYN,
#endif
#if defined BLIS_CONFIG_ZEN3
        BLIS_ARCH_ZEN3,
#endif
#if defined BLIS_CONFIG_ZEN2
        BLIS_ARCH_ZEN2,
#endif
#if defined BLIS_CONFIG_ZEN
        BLIS_ARCH_ZEN,
#endif
#if defined BLIS_CONFIG_EXCAVATOR
        BLIS_ARCH_EXCAVATOR,
#endif
#if defined BLIS_CONFIG_THUNDERX2
        BLIS_ARCH_THUNDERX2,
#endif
#if defined BLIS_CONFIG_CORTEXA57
        BLIS_ARCH_CORTEXA57,
#endif
#if defined BLIS_CONFIG_CORTEXA53
        BLIS_ARCH_CORTEXA53,
#endif
#if defined BLIS_CONFIG_GENERIC
        BLIS_ARCH_GENERIC,
#endif
    };
    char *end;
    const long number = strtol(text, &end, 10);
    for (size_t i = 0; i < sizeof families / sizeof *families; ++i)
        if (*text != '\0' && *end == '\0' && number == families[i])
            return true;
    return false;
}

void linalg_setup(void)
{
    /* One thread a rank whatever BLIS was built with: the ranks are the parallelism. */
    setenv("BLIS_NUM_THREADS", "1", 1);
    int family = family_for_this_cpu();
    const char *chosen = getenv("BLIS_ARCH_TYPE");
    if (chosen != NULL && !is_family(chosen)) /* BLIS would abort, or take a word for 0 */
        unsetenv("BLIS_ARCH_TYPE");
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
enum { LANCZOS_STEPS = 160, LANCZOS_FIRST_CHECK = 24, LANCZOS_CHECK = 8, LANCZOS_RESTARTS = 64 };

/* Up to this dimension a'a is formed: a product of small matrices, and one instead of two for each step. */
enum { LANCZOS_GRAM_DIMENSION = 64 };

/* Columns are padded to whole vectors with zeros, here and in the basis: no loop has a rest. */
int64_t linalg_spectral_workspace(int64_t dimension)
{
    const int64_t n = kernels_padded(dimension);
    return n * ((dimension <= LANCZOS_GRAM_DIMENSION ? 3 : 1) * n +
                (dimension < LANCZOS_STEPS ? dimension : LANCZOS_STEPS) + 4);
}

/* An estimate of the largest eigenvalue: Laguerre's iteration on the characteristic polynomial p from above all
 * roots, which falls monotonically to the largest, and does so cubically (Parlett 1964). Off where roots are so close
 * that p between them is rounding. `bound` is above all eigenvalues. */
static double estimate_top(int64_t m, const double *alpha, const double *beta, double bound)
{
    double x = 1; /* in units of the bound */
    for (int iteration = 0; iteration < 30; ++iteration) {
        /* p, p', p'' of the leading minors of order k and k - 1, in a common scale */
        double p[3] = {1, 0, 0}, before[3] = {0, 0, 0};
        for (int64_t k = 0; k < m; ++k) {
            const double a = alpha[k] / bound - x, b = k > 0 ? beta[k - 1] / bound : 0, bb = b * b;
            const double next[3] = {a * p[0] - bb * before[0], a * p[1] - p[0] - bb * before[1],
                                    a * p[2] - 2 * p[1] - bb * before[2]};
            const double size = fabs(next[0]) + fabs(next[1]) + fabs(next[2]);
            const double scale = size < 1e-60 || size > 1e60 ? 1 / size : 1;
            for (int i = 0; i < 3; ++i) {
                before[i] = p[i] * scale;
                p[i] = next[i] * scale;
            }
        }
        const double n = (double)m, g = p[1] / p[0], h = g * g - p[2] / p[0];
        const double step = n / (g + sqrt(fmax(0, (n - 1) * (n * h - g * g))));
        if (!(step > 0x1p-52 * x && step < x))
            break;
        x -= step;
    }
    return x * bound;
}

/* Is an eigenvalue of the tridiagonal matrix above x? Sylvester's law: as many as there are positive pivots. */
static bool eigenvalue_above(int64_t m, const double *alpha, const double *beta, double x)
{
    double pivot = alpha[0] - x;
    for (int64_t k = 1; pivot < 0 && k < m; ++k)
        pivot = alpha[k] - x - beta[k - 1] * beta[k - 1] / pivot;
    return pivot >= 0;
}

/* The largest eigenvalue of the tridiagonal matrix with diagonal alpha [m] and off-diagonal beta [m - 1], positive
 * semidefinite, to a few units in the last place: the estimate, held to by bisection, which is never off. */
static double top_eigenvalue(int64_t m, const double *alpha, const double *beta)
{
    double bound = 0;
    for (int64_t k = 0; k < m; ++k)
        bound =
            fmax(bound, alpha[k] + (k > 0 ? beta[k - 1] : 0) + (k + 1 < m ? beta[k] : 0)); /* Gershgorin */
    if (!(bound > 0))
        return 0;
    const double estimate = estimate_top(m, alpha, beta, bound);
    double width = 0x1p-50 * estimate, low = estimate - width, high = estimate + width;
    for (; low > 0 && !eigenvalue_above(m, alpha, beta, low); width *= 16) {
        high = low;
        low = fmax(0, low - width);
    }
    for (; high < bound && eigenvalue_above(m, alpha, beta, high); width *= 16) {
        low = high;
        high = fmin(bound, high + width);
    }
    while (high - low > 0x1p-50 * high) {
        double middle = low + (high - low) / 2;
        if (eigenvalue_above(m, alpha, beta, middle))
            low = middle;
        else
            high = middle;
    }
    return low + (high - low) / 2;
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

/* x loses its parts along the basis [count][n]; returns the length of what is left. Classical Gram-Schmidt, whose products do
 * not wait for one another; once more where little was left, whose error is large beside it (Giraud et al. 2005).
 * coefficients [count]. */
static double orthogonalize(const struct kernels *kernels, int64_t n, int64_t count, const double *basis,
                            double *x, double *coefficients)
{
    double after = sqrt(kernels->dot(n, x, x)), before = INFINITY;
    for (int pass = 0; pass < 2 && after < 0.1 * before; ++pass) {
        before = after;
        kernels->project(n, count, basis, x, coefficients);
        for (int64_t k = 0; k < count; ++k)
            coefficients[k] = -coefficients[k];
        kernels->combine(n, count, basis, coefficients, x);
        after = sqrt(kernels->dot(n, x, x));
    }
    return after;
}

void linalg_orthonormalize(const struct kernels *kernels, int64_t dimension, double *a, int64_t lda,
                           double *workspace)
{
    const int64_t d = dimension, n = kernels_padded(d);
    double *basis = workspace, *coefficients = basis + n * n;
    memset(basis, 0, (size_t)(n * d) * sizeof *basis);
    for (int64_t j = 0; j < d; ++j) {
        double *x = basis + j * n;
        memcpy(x, a + j * lda, (size_t)d * sizeof *x);
        const double length = orthogonalize(kernels, n, j, basis, x, coefficients);
        for (int64_t i = 0; i < d; ++i)
            a[i + j * lda] = x[i] /= length;
    }
}

/* The columns of `a` into padded ones, in units of its largest entry, so that squares neither overflow nor vanish.
 * Returns that entry; 0 or NaN if there is nothing to divide by. */
static double scaled_copy(int64_t d, const double *a, int64_t lda, int64_t n, double *ret)
{
    double largest = 0, sum = 0;
    for (int64_t j = 0; j < d; ++j)
        for (int64_t i = 0; i < d; ++i) {
            double x = fabs(a[i + j * lda]);
            largest = x > largest ? x : largest;
            sum += x * 0;
        }
    if (sum != 0) /* inf or NaN times 0 */
        return NAN;
    /* A power of two, so that nothing is rounded. */
    const double unit = largest > 0 ? ldexp(1, ilogb(largest)) : 0;
    for (int64_t j = 0; j < d && unit > 0; ++j) {
        for (int64_t i = 0; i < d; ++i)
            ret[i + j * n] = a[i + j * lda] / unit;
        for (int64_t i = d; i < n; ++i)
            ret[i + j * n] = 0;
    }
    return unit;
}

double linalg_spectral_norm(const struct kernels *kernels, int64_t dimension, const double *a, int64_t lda,
                            double *workspace)
{
    const int64_t d = dimension, n = kernels_padded(d);
    const int64_t steps = d < LANCZOS_STEPS ? d : LANCZOS_STEPS;
    const bool small = d <= LANCZOS_GRAM_DIMENSION;
    double *columns = workspace, *rows = columns + n * n, *gram = rows + n * n;
    double *basis = small ? gram + n * n : rows, *t = basis + n * steps, *next = t + n;
    double *ritz = next + n, *coefficients = ritz + n;
    double alpha[LANCZOS_STEPS], beta[LANCZOS_STEPS], s[LANCZOS_STEPS];
    double top = 0;

    const double unit = scaled_copy(d, a, lda, n, columns);
    if (!(unit > 0))
        return unit;
    if (small) {
        memset(rows, 0, (size_t)(n * d) * sizeof *rows);
        for (int64_t j = 0; j < d; ++j)
            for (int64_t i = 0; i < d; ++i)
                rows[i * n + j] = columns[j * n + i];
        kernels->multiply(n, d, d, rows, n, columns, false, gram);
    }
    /* Any vector that no structure of `a` is orthogonal to: the fractional parts of multiples of the golden ratio. */
    memset(ritz, 0, (size_t)n * sizeof *ritz);
    for (int64_t i = 0; i < d; ++i)
        ritz[i] = 0.5 + fmod((double)(i + 1) * 0.61803398874989484820, 1.0);
    for (int restart = 0; restart < LANCZOS_RESTARTS; ++restart) {
        double length = sqrt(kernels->dot(n, ritz, ritz));
        for (int64_t i = 0; i < n; ++i)
            basis[i] = ritz[i] / length;
        int64_t m = 0;
        while (true) {
            memset(t, 0, (size_t)n * sizeof *t);
            memset(next, 0, (size_t)n * sizeof *next);
            if (small) {
                kernels->combine(n, d, gram, basis + m * n, next);
            } else {
                kernels->combine(n, d, columns, basis + m * n, t);
                kernels->project(n, d, columns, t, next);
            }
            alpha[m] = kernels->dot(n, basis + m * n, next);
            beta[m] = orthogonalize(kernels, n, m + 1, basis, next, coefficients);
            ++m;
            bool exhausted = m == d || beta[m - 1] <= 1e-15 * (top > alpha[0] ? top : alpha[0]);
            if (exhausted || m == steps || (m % LANCZOS_CHECK == 0 && m >= LANCZOS_FIRST_CHECK)) {
                top = top_eigenvalue(m, alpha, beta);
                if (exhausted)
                    return unit * sqrt(top);
                top_eigenvector(m, alpha, beta, top, s);
                if (beta[m - 1] * fabs(s[m - 1]) <= 1e-10 * top)
                    return unit * sqrt(top);
                if (m == steps)
                    break;
            }
            for (int64_t i = 0; i < n; ++i)
                basis[m * n + i] = next[i] / beta[m - 1];
        }
        memset(ritz, 0, (size_t)n * sizeof *ritz);
        kernels->combine(n, m, basis, s, ritz);
    }
    return unit * sqrt(top); /* the Ritz value's error is far below the residual's bound even here */
}
