/* record: the tables are complete, and the recorded steps are what record.h promises for every count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/record.h"

static void names(void **state)
{
    (void)state;
    const char *const expected[] = {"loss",          "batch_loss",     "error",
                                    "potential",     "potential_norm", "alignment",
                                    "gradient_norm", "weight_norm",    "test_loss"};
    for (int f = 0; f < RECORD_FIELD_COUNT; f++) {
        const struct record_field_info *info = record_field_info((enum record_field)f);
        assert_string_equal(info->name, expected[f]);
        assert_string_equal(info->units, "1");
        assert_true(strlen(info->long_name) > 10);
    }
    const char *const outcomes[] = {"pending", "running",    "converged", "diverged",
                                    "stalled", "unfinished", "failed"};
    for (int o = 0; o < OUTCOME_COUNT; o++)
        assert_string_equal(outcome_name((enum outcome)o), outcomes[o]);
    assert_string_equal(failure_name(FAILURE_NONE), "none");
    assert_string_equal(failure_name(FAILURE_OUT_OF_MEMORY), "out_of_memory");
}

static void check_steps(int64_t steps, int64_t count)
{
    int64_t *ret = malloc((size_t)count * sizeof *ret);
    assert_non_null(ret);
    record_steps(steps, count, ret);
    assert_int_equal(ret[0], 0);
    assert_int_equal(ret[count - 1], steps);
    for (int64_t i = 1; i < count; i++)
        if (ret[i] <= ret[i - 1])
            fail_msg("steps %lld, count %lld: record %lld is at step %lld, the one before at %lld",
                     (long long)steps, (long long)count, (long long)i, (long long)ret[i],
                     (long long)ret[i - 1]);
    free(ret);
}

static void steps_are_distinct_for_every_count(void **state)
{
    (void)state;
    for (int64_t steps = 1; steps <= 200; steps++)
        for (int64_t count = 2; count <= steps + 1; count++)
            check_steps(steps, count);
    const int64_t large[] = {1000, 20000, 99991, 1000000, 1000000007, INT64_C(1000000000000)};
    for (size_t s = 0; s < sizeof large / sizeof *large; s++)
        for (int64_t count = 2; count <= large[s] + 1 && count <= 1000000; count = count * 3 / 2 + 1)
            check_steps(large[s], count);
    check_steps(20000, 20001);
    check_steps(20000, 20000);
    check_steps(999999, 1000000);
}

static void steps_are_log_spaced(void **state)
{
    (void)state;
    int64_t ret[64];
    record_steps(1000, 5, ret); /* 1000^(1/3) = 10 apart */
    const int64_t decades[] = {0, 1, 10, 100, 1000};
    assert_memory_equal(ret, decades, sizeof decades);

    /* Beyond the consecutive ones, the ratio of neighbours is that of the whole but for rounding to integers.
     */
    record_steps(20000, 64, ret);
    for (int i = 32; i < 63; i++) {
        const double ratio = (double)ret[i + 1] / (double)ret[i];
        const double whole = pow(20000.0 / (double)ret[32], 1.0 / 31.0);
        assert_true(fabs(ratio - whole) <= 1.0 / (double)ret[i] * whole);
    }
}

static void phase2_is_the_last_stretch(void **state)
{
    (void)state;
    /* d = 4: the bound is max(0.1 * 2, 0.02) = 0.2. */
    const double alignment[] = {-1.0, 0.5, 0.5, -0.1, 0.5, 0.5};
    const double potential[] = {2.0, 0.1, 0.1, 0.1, -0.2, 0.0};
    assert_int_equal(record_phase2(alignment, potential, 6, 4), 4);
    assert_int_equal(record_phase2(alignment, potential, 4, 4), -1); /* ends outside */
    assert_int_equal(record_phase2(alignment, potential, 3, 4), 1);
    assert_int_equal(record_phase2(alignment, potential, 0, 4), -1);

    const double broken[] = {0.5, NAN, 0.5};
    const double flat[] = {0.0, 0.0, 0.0};
    assert_int_equal(record_phase2(broken, flat, 3, 4), 2);
    assert_int_equal(record_phase2(broken, flat, 2, 4), -1);

    /* A potential that starts at 0 is held to 0.01 sqrt(d) = 0.02. */
    const double good[] = {1.0, 1.0, 1.0};
    const double small[] = {0.0, 0.03, 0.02};
    assert_int_equal(record_phase2(good, small, 3, 4), 2);
    const double within[] = {0.0, 0.02, -0.02};
    assert_int_equal(record_phase2(good, within, 3, 4), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(steps_are_distinct_for_every_count),
        cmocka_unit_test(steps_are_log_spaced),
        cmocka_unit_test(phase2_is_the_last_stretch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
