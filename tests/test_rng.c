#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <Random123/philox.h>

#include "sgdmap/linalg.h"
#include "sgdmap/rng.h"

static const char *const ISAS[] = {"avx512", "avx2", "baseline"};

/* Published by Random123 (kat_vectors): what the header gives must be Philox 4x32-10. */
static void random123_has_the_published_values(void **state)
{
    (void)state;
    philox4x32_ctr_t counter = {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
    philox4x32_key_t key = {{0xa4093822, 0x299f31d0}};
    const uint32_t expected[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    counter = philox4x32(counter, key);
    assert_memory_equal(counter.v, expected, sizeof expected);
}

static double unit(uint32_t low, uint32_t high)
{
    return (double)(((uint64_t)high << 32 | low) >> 12) * 0x1p-52;
}

/* The vectorized stream against Random123's Philox and libm's Box-Muller, an element at a time. */
static void normals_are_box_muller_of_random123(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    const uint64_t step = 0x123456789abcULL;
    struct rng_key key = rng_key(77, 3, 21, RNG_INPUT);
    double *normals = linalg_new(rng_padded(COUNT));
    assert_non_null(normals);
    for (size_t isa = 0; isa < sizeof ISAS / sizeof *ISAS; ++isa) {
        const struct kernels *kernels = kernels_select(ISAS[isa]);
        if (kernels == NULL)
            continue;
        assert_string_equal(kernels->name, ISAS[isa]);
        rng_normals(kernels, key, step, COUNT, normals);
        for (uint32_t i = 0; i < COUNT; ++i) {
            uint32_t lane = i % 8, chunk = i / 16;
            philox4x32_ctr_t counter = {{8 * chunk + lane, 0, (uint32_t)step, (uint32_t)(step >> 32)}};
            philox4x32_key_t words = {{key.word[0], key.word[1]}};
            counter = philox4x32(counter, words);
            double radius = sqrt(-2 * log(1 - unit(counter.v[0], counter.v[1])));
            double turn = 2 * M_PI * unit(counter.v[2], counter.v[3]);
            double expected = radius * (i / 8 % 2 == 0 ? cos(turn) : sin(turn));
            /* The rounding of 2 pi u, times a radius of at most 8.5. */
            assert_true(fabs(normals[i] - expected) < 60 * 0x1p-52);
        }
    }
    free(normals);
}

static void a_prefix_does_not_depend_on_the_count(void **state)
{
    (void)state;
    struct rng_key key = rng_key(1, 0, 10, RNG_TEACHER);
    double *few = linalg_new(rng_padded(17)), *many = linalg_new(rng_padded(500));
    assert_true(few != NULL && many != NULL);
    rng_normals(kernels_select(NULL), key, 0, 17, few);
    rng_normals(kernels_select(NULL), key, 0, 500, many);
    assert_memory_equal(few, many, 17 * sizeof *few);
    free(few);
    free(many);
}

static void keys_differ(void **state)
{
    (void)state;
    const struct rng_key keys[] = {
        rng_key(1, 0, 10, RNG_TEACHER),         rng_key(2, 0, 10, RNG_TEACHER),
        rng_key(1, 1, 10, RNG_TEACHER),         rng_key(1, 0, 11, RNG_TEACHER),
        rng_key(1, 0, 10, RNG_INITIAL),         rng_key(1ULL << 32, 0, 10, RNG_TEACHER),
        rng_key(1, 1LL << 32, 10, RNG_TEACHER),
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i)
        for (size_t j = 0; j < i; ++j)
            assert_memory_not_equal(&keys[i], &keys[j], sizeof *keys);
}

static void unknown_kernels_are_refused(void **state)
{
    (void)state;
    assert_null(kernels_select("mmx"));
    assert_non_null(kernels_select(NULL));
    assert_non_null(kernels_select("baseline"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random123_has_the_published_values),
        cmocka_unit_test(normals_are_box_muller_of_random123),
        cmocka_unit_test(a_prefix_does_not_depend_on_the_count),
        cmocka_unit_test(keys_differ),
        cmocka_unit_test(unknown_kernels_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
