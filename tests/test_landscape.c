/* The landscape against Monte Carlo and finite differences; tests/test_golden.py has it against 60 digits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sgdmap/landscape.h"
#include "sgdmap/linalg.h"
#include "sgdmap/rng.h"

enum { D = 5 };

static const struct kernels *kernels;
static double *teacher, *student;

static int setup(void **state)
{
    (void)state;
    linalg_setup();
    kernels = kernels_select(NULL);
    teacher = linalg_new(rng_padded(D * D));
    student = linalg_new(rng_padded(D * D));
    if (teacher == NULL || student == NULL)
        return -1;
    rng_normals(kernels, rng_key(1, 0, D, RNG_TEACHER), 0, D * D, teacher);
    rng_normals(kernels, rng_key(1, 0, D, RNG_INITIAL), 0, D * D, student);
    for (int i = 0; i < D * D; ++i) {
        teacher[i] = 0.2 * teacher[i] + (i % (D + 1) == 0);
        student[i] = 0.3 * student[i] + (i % (D + 1) == 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(teacher);
    free(student);
    return 0;
}

static double loss_at(struct landscape *landscape, const double *columns)
{
    struct diagnostics diagnostics;
    landscape_measure(landscape, columns, &diagnostics, NULL);
    return diagnostics.loss;
}

static double output(const double *columns, const double *x)
{
    double sum = 0;
    for (int j = 0; j < D; ++j)
        sum += fmax(0, kernels->dot(D, columns + j * D, x));
    return sum;
}

static void loss_is_the_mean_of_the_squared_residual(void **state)
{
    (void)state;
    enum { SAMPLES = 200000 };
    struct landscape *landscape;
    double *x = linalg_new(rng_padded(SAMPLES * D));
    assert_non_null(x);
    assert_int_equal(landscape_new(kernels, D, teacher, &landscape, NULL), 0);
    rng_normals(kernels, rng_key(9, 0, D, RNG_INITIAL), 0, SAMPLES * D, x);
    double sum = 0, squares = 0;
    for (int64_t n = 0; n < SAMPLES; ++n) {
        double r = output(student, x + n * D) - output(teacher, x + n * D);
        sum += r * r;
        squares += r * r * r * r;
    }
    double mean = sum / SAMPLES, standard_error = sqrt((squares / SAMPLES - mean * mean) / SAMPLES);
    assert_true(fabs(loss_at(landscape, student) - mean) < 5 * standard_error);
    landscape_free(landscape);
    free(x);
}

/* Central differences with h = 1e-5: h^2 of the third derivative, and eps L / h. */
static void gradient_is_the_derivative(void **state)
{
    (void)state;
    struct landscape *landscape;
    struct diagnostics diagnostics;
    double gradient[D * D], moved[D * D], squares = 0;
    assert_int_equal(landscape_new(kernels, D, teacher, &landscape, NULL), 0);
    landscape_measure(landscape, student, &diagnostics, gradient);
    for (int i = 0; i < D * D; ++i) {
        memcpy(moved, student, sizeof moved);
        moved[i] = student[i] + 1e-5;
        double plus = loss_at(landscape, moved);
        moved[i] = student[i] - 1e-5;
        double minus = loss_at(landscape, moved);
        assert_true(fabs((plus - minus) / 2e-5 - gradient[i]) < 1e-8);
        squares += gradient[i] * gradient[i];
    }
    assert_true(fabs(diagnostics.gradient_norm - sqrt(squares)) < 1e-14);
    landscape_free(landscape);
}

static void zero_columns_have_no_gradient(void **state)
{
    (void)state;
    struct landscape *landscape;
    struct diagnostics diagnostics;
    double gradient[D * D], columns[D * D];
    assert_int_equal(landscape_new(kernels, D, teacher, &landscape, NULL), 0);
    memcpy(columns, student, sizeof columns);
    memset(columns + 2 * D, 0, D * sizeof *columns);
    landscape_measure(landscape, columns, &diagnostics, gradient);
    assert_true(isfinite(diagnostics.loss) && isfinite(diagnostics.alignment));
    for (int i = 2 * D; i < 3 * D; ++i)
        assert_true(gradient[i] == 0);
    /* The limit of a small column is the same loss. */
    double at_zero = diagnostics.loss;
    columns[2 * D] = 1e-9;
    assert_true(fabs(loss_at(landscape, columns) - at_zero) < 1e-8);
    memset(columns, 0, sizeof columns);
    landscape_measure(landscape, columns, &diagnostics, gradient);
    assert_true(diagnostics.gradient_norm == 0 && diagnostics.loss > 0);
    landscape_free(landscape);
}

static void the_teacher_is_the_minimum(void **state)
{
    (void)state;
    struct landscape *landscape;
    struct diagnostics diagnostics;
    assert_int_equal(landscape_new(kernels, D, teacher, &landscape, NULL), 0);
    landscape_measure(landscape, teacher, &diagnostics, NULL);
    assert_true(diagnostics.loss == 0 && diagnostics.error == 0 && diagnostics.gradient_norm == 0);
    assert_true(isnan(diagnostics.alignment));
    landscape_free(landscape);
    landscape_free(NULL);
}

/* landscape_gradient() against landscape_measure() at dimensions around those where products and vectors change, from far away
 * to next to the teacher, with columns that are zero, tiny, parallel to the teacher's, or opposite to them. */
static void the_gradient_alone_is_the_same(void **state)
{
    (void)state;
    static const int64_t dimensions[] = {1, 2, 7, 8, 9, 33, 64, 65, 100};
    for (size_t i = 0; i < sizeof dimensions / sizeof *dimensions; ++i) {
        const int64_t d = dimensions[i], n = d * d;
        double *b = linalg_new(rng_padded(n)), *w = linalg_new(rng_padded(n)), *a = linalg_new(n);
        double *expected = linalg_new(n), *gradient = linalg_new(n);
        rng_normals(kernels, rng_key(3, 0, d, RNG_TEACHER), 0, n, b);
        rng_normals(kernels, rng_key(3, 0, d, RNG_INITIAL), 0, n, w);
        for (int64_t k = 0; k < n; ++k)
            b[k] = 0.5 * b[k] / sqrt((double)d) + (k % (d + 1) == 0);
        struct landscape *landscape;
        assert_int_equal(landscape_new(kernels, d, b, &landscape, NULL), 0);
        for (int exponent = 1; exponent >= -15; exponent -= 2)
            for (int odd = 0; odd < 5; ++odd) {
                for (int64_t k = 0; k < n; ++k)
                    a[k] = b[k] + pow(10, exponent) * w[k];
                static const double factors[] = {0, 1e-9, 3, -1};
                for (int64_t k = 0; odd > 0 && k < d; ++k)
                    a[k] = factors[odd - 1] * b[k];
                struct diagnostics diagnostics;
                landscape_measure(landscape, a, &diagnostics, expected);
                landscape_gradient(landscape, a, gradient);
                for (int64_t k = 0; k < n; ++k)
                    assert_true(fabs(gradient[k] - expected[k]) <= 1e-13 * diagnostics.gradient_norm);
            }
        a[0] = NAN;
        landscape_gradient(landscape, a, gradient);
        assert_true(isnan(gradient[0]) && isnan(gradient[n - 1]));
        landscape_free(landscape);
        free(b);
        free(w);
        free(a);
        free(expected);
        free(gradient);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_is_the_mean_of_the_squared_residual),
        cmocka_unit_test(gradient_is_the_derivative),
        cmocka_unit_test(zero_columns_have_no_gradient),
        cmocka_unit_test(the_teacher_is_the_minimum),
        cmocka_unit_test(the_gradient_alone_is_the_same),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
