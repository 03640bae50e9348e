#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sgdmap/linalg.h"
#include "sgdmap/rng.h"

static double *normals(int64_t count, int64_t replicate)
{
    double *ret = linalg_new(rng_padded(count));
    assert_non_null(ret);
    rng_normals(kernels_select(NULL), rng_key(5, replicate, 1, RNG_INITIAL), 0, count, ret);
    return ret;
}

static int setup(void **state)
{
    (void)state;
    linalg_setup();
    return 0;
}

/* Against the definition; a sum of k products of normals has an error of at most k eps times its absolute sum. */
static void product_against_its_definition(void **state)
{
    (void)state;
    const int64_t shapes[][3] = {{1, 1, 1}, {7, 3, 5}, {16, 400, 10}, {50, 100, 200}, {33, 1, 8}};
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; ++shape)
        for (int transposed = 0; transposed < 2; ++transposed)
            for (int beta = 0; beta < 2; ++beta) {
                const int64_t m = shapes[shape][0], n = shapes[shape][1], k = shapes[shape][2];
                const int64_t lda = (transposed ? k : m) + 2, ldb = k + 1, ldc = m + 3;
                double *a = normals(lda * (transposed ? m : k), 1), *b = normals(ldb * n, 2),
                       *c = normals(ldc * n, 3);
                double *before = normals(ldc * n, 3);
                linalg_product(transposed ? LINALG_TRANSPOSED : LINALG_PLAIN, m, n, k, a, lda, b, ldb, beta,
                               c, ldc);
                for (int64_t j = 0; j < n; ++j)
                    for (int64_t i = 0; i < ldc; ++i) {
                        double sum = i < m ? beta * before[i + j * ldc] : before[i + j * ldc];
                        for (int64_t l = 0; l < k && i < m; ++l)
                            sum += (transposed ? a[l + i * lda] : a[i + l * lda]) * b[l + j * ldb];
                        assert_true(fabs(c[i + j * ldc] - sum) <= 1e-13 * (double)k);
                    }
                free(a);
                free(b);
                free(c);
                free(before);
            }
}

static double norm_of(int64_t d, const double *a)
{
    double *workspace = linalg_new(linalg_spectral_workspace(d));
    assert_non_null(workspace);
    double ret = linalg_spectral_norm(kernels_select(NULL), d, a, d, workspace);
    free(workspace);
    return ret;
}

static void spectral_norms_that_are_known(void **state)
{
    (void)state;
    enum { D = 37 };
    double *a = linalg_new(D * D);
    assert_non_null(a);
    assert_true(norm_of(D, a) == 0);
    for (int64_t i = 0; i < D; ++i)
        a[i + i * D] = i % 2 == 0 ? (double)i : -(double)i;
    assert_true(fabs(norm_of(D, a) - (D - 1)) <= 1e-13 * D);
    for (int64_t i = 0; i < D * D; ++i)
        a[i] = -2; /* rank one: 2 D */
    assert_true(fabs(norm_of(D, a) - 2 * D) <= 1e-13 * D);
    for (int64_t i = 0; i < D * D; ++i)
        a[i] = 1e300;
    assert_true(fabs(norm_of(D, a) / 1e300 - D) <= 1e-13 * D);
    a[5] = INFINITY;
    assert_true(isnan(norm_of(D, a)));
    a[5] = NAN;
    assert_true(isnan(norm_of(D, a)));
    free(a);
}

/* ||a x|| <= ||a||_2 ||x|| with equality for the singular vector: power iteration comes near from below. */
static void spectral_norm_of_a_random_matrix(void **state)
{
    (void)state;
    enum { D = 120 };
    double *a = normals(D * D, 7), x[D], y[D];
    double norm = norm_of(D, a), reached = 0;
    for (int i = 0; i < D; ++i)
        x[i] = 1 / sqrt(D);
    for (int iteration = 0; iteration < 3000; ++iteration) {
        double squares = 0;
        for (int i = 0; i < D; ++i) {
            y[i] = 0;
            for (int j = 0; j < D; ++j)
                y[i] += a[i + j * D] * x[j];
            squares += y[i] * y[i];
        }
        reached = sqrt(squares);
        squares = 0;
        for (int j = 0; j < D; ++j) {
            x[j] = kernels_select(NULL)->dot(D, a + j * D, y);
            squares += x[j] * x[j];
        }
        for (int j = 0; j < D; ++j)
            x[j] /= sqrt(squares);
    }
    assert_true(fabs(norm - reached) <= 1e-12 * norm);
    free(a);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    assert_null(linalg_new(-1));
    assert_null(linalg_new(INT64_MAX));
    double *none = linalg_new(0);
    assert_non_null(none);
    free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_against_its_definition),
        cmocka_unit_test(spectral_norms_that_are_known),
        cmocka_unit_test(spectral_norm_of_a_random_matrix),
        cmocka_unit_test(impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
