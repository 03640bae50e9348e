/* The fused kernels against plain loops that round in the same places: to the bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sgdmap/kernels.h"
#include "sgdmap/linalg.h"

static const char *const isas[] = {"avx512", "avx2", "baseline"};

/* In [-1, 1), from splitmix64. */
static double any_number(uint64_t *state)
{
    uint64_t x = *state += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return (double)((x ^ x >> 31) >> 11) * 0x1p-52 - 1;
}

static double *numbers(int64_t count, uint64_t seed)
{
    double *ret = linalg_new(count);
    assert_non_null(ret);
    for (int64_t i = 0; i < count; i++)
        ret[i] = any_number(&seed);
    return ret;
}

/* Baseline x86-64 has no fused multiply-add. */
static double multiply_add(bool fused, double a, double b, double c)
{
    return fused ? fma(a, b, c) : a * b + c;
}

/* One student, columns a [d][d], moved; returns the sum of the residuals' squares. */
static double plain_step(bool fused, int64_t d, int64_t batch, int64_t stride, const double *x,
                         const double *target, double factor, double *a)
{
    double *gradient = calloc((size_t)(d * d), sizeof *gradient), *z = calloc((size_t)d, sizeof *z),
           squares = 0;
    for (int64_t n = 0; n < batch; n++) {
        double residual = 0;
        for (int64_t j = 0; j < d; j++) {
            z[j] = 0;
            for (int64_t i = 0; i < d; i++)
                z[j] = multiply_add(fused, x[i * stride + n], a[j * d + i], z[j]);
            residual += z[j] > 0 ? z[j] : 0;
        }
        residual -= target[n];
        squares += residual * residual;
        for (int64_t j = 0; j < d; j++)
            for (int64_t i = 0; i < d; i++)
                gradient[j * d + i] =
                    multiply_add(fused, x[i * stride + n], z[j] > 0 ? residual : 0, gradient[j * d + i]);
    }
    for (int64_t k = 0; k < d * d; k++)
        a[k] = multiply_add(fused, factor, gradient[k], a[k]);
    free(gradient);
    free(z);
    return squares;
}

static void check_step(const struct kernels *kernels, int64_t d, int64_t batch, bool common)
{
#if defined __x86_64__
    const bool fused = strcmp(kernels->name, "baseline") != 0;
#else
    const bool fused = true;
#endif
    const int64_t lanes = kernels->fused->lanes, stride = batch + 3;
    double *x = numbers(d * stride, 1), *target = numbers(batch * lanes, 2),
           *students = numbers(d * d * lanes, 3);
    double *workspace = numbers(kernels_step_workspace(d, lanes), 4), factor[KERNELS_LANES],
           squares[KERNELS_LANES];
    double *before = numbers(d * d * lanes, 3), *one = numbers(d * d, 5), *one_target = numbers(batch, 6);
    for (int64_t lane = 0; lane < lanes; lane++)
        factor[lane] = lane == 1 ? 0 : -0.01 / (double)(lane + 1);
    const struct kernels_step step = {d,      batch,    stride,    x,      target, common ? 1 : lanes,
                                      factor, students, workspace, squares};
    kernels->fused->step(&step);
    for (int64_t lane = 0; lane < lanes; lane++) {
        for (int64_t k = 0; k < d * d; k++)
            one[k] = before[k * lanes + lane];
        for (int64_t n = 0; n < batch; n++)
            one_target[n] = common ? target[n] : target[n * lanes + lane];
        const double expected = plain_step(fused, d, batch, stride, x, one_target, factor[lane], one);
        assert_true(squares[lane] == expected);
        for (int64_t k = 0; k < d * d; k++)
            assert_true(students[k * lanes + lane] == one[k]);
    }
    free(x);
    free(target);
    free(students);
    free(workspace);
    free(before);
    free(one);
    free(one_target);
}

/* All remainders of the tiles, and batches of one, two and three pieces. */
static void a_step_has_the_bits_of_plain_loops(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const struct kernels *kernels = kernels_select(isas[i]);
        if (kernels == NULL)
            continue;
        for (int64_t d = 1; d <= 26; d++)
            for (int64_t batch = 1; batch <= 19; batch++)
                check_step(kernels, d, batch, (d + batch) % 2 == 0);
        const int64_t batches[] = {127, 128, 129, 137, 200, 256, 257, 300};
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
            check_step(kernels, 7 + (int64_t)b, batches[b], b % 2 == 0);
        check_step(kernels, 100, 40, true);
    }
}

/* A student with its teacher's weights stays where it is: the outputs are the same bits. */
static void the_teacher_s_output_is_a_student_s(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const struct kernels *kernels = kernels_select(isas[i]);
        if (kernels == NULL)
            continue;
        const int64_t lanes = kernels->fused->lanes;
        for (int64_t d = 1; d <= 40; d += d < 20 ? 1 : 7)
            for (int64_t batch = 1; batch <= 200; batch += batch < 50 ? 7 : 50) {
                const int64_t stride = kernels_padded(batch) + 8;
                double *x = numbers(d * stride, 1), *columns = numbers(d * d, 2),
                       *target = numbers(stride, 3);
                double *students = numbers(d * d * lanes, 4),
                       *workspace = numbers(kernels_step_workspace(d, lanes), 5);
                double factor[KERNELS_LANES], squares[KERNELS_LANES];
                kernels->fused->output(d, kernels_padded(batch), stride, x, columns, target);
                for (int64_t k = 0; k < d * d * lanes; k++)
                    students[k] = columns[k / lanes];
                for (int64_t lane = 0; lane < lanes; lane++)
                    factor[lane] = -1;
                const struct kernels_step step = {d, batch,  stride,   x,         target,
                                                  1, factor, students, workspace, squares};
                kernels->fused->step(&step);
                for (int64_t k = 0; k < d * d * lanes; k++)
                    assert_true(students[k] == columns[k / lanes]);
                for (int64_t lane = 0; lane < lanes; lane++)
                    assert_true(squares[lane] == 0);
                free(x);
                free(columns);
                free(target);
                free(students);
                free(workspace);
            }
    }
}

static void distances(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const struct kernels *kernels = kernels_select(isas[i]);
        if (kernels == NULL)
            continue;
        const int64_t lanes = kernels->fused->lanes;
        for (int64_t d = 1; d <= 33; d++) {
            double *own = numbers(d * d * lanes, 1), *students = numbers(d * d * lanes, 2),
                   *teacher = numbers(d * d, 3);
            double ret[KERNELS_LANES], of_one[KERNELS_LANES];
            kernels->fused->distances_from_own(d, own, students, ret);
            for (int64_t lane = 0; lane < lanes; lane++) {
                double expected = 0;
                for (int64_t k = 0; k < d * d; k++) {
                    teacher[k] = own[k * lanes + lane];
                    const double delta = students[k * lanes + lane] - teacher[k];
                    expected += delta * delta;
                }
                assert_true(fabs(ret[lane] - expected) <= 1e-14 * expected);
                kernels->fused->distances(d, teacher, students, of_one);
                assert_true(of_one[lane] == ret[lane]);
            }
            free(own);
            free(students);
            free(teacher);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_has_the_bits_of_plain_loops),
        cmocka_unit_test(the_teacher_s_output_is_a_student_s),
        cmocka_unit_test(distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
