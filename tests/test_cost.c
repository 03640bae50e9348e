/* cost: it grows with the work, and the layouts and widths that follow from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sgdmap/config.h"
#include "sgdmap/cost.h"

/* Of a run's step; and of its record. */
static double step_cost(int64_t dimension, int64_t batch_size, bool in_lanes)
{
    return cost_step(
        &(struct cost_shape){.dimension = dimension, .batch_size = batch_size, .in_lanes = in_lanes});
}

static double record_cost(int64_t dimension, int64_t test)
{
    return cost_record(&(struct cost_shape){.dimension = dimension, .test = test});
}

static void costs_grow_with_work(void **state)
{
    (void)state;
    for (int in_lanes = 0; in_lanes < 2; in_lanes++)
        for (int64_t d = 1; d < CONFIG_DIMENSION_MAX; d++) {
            assert_true(step_cost(d, 200, in_lanes) > 0 && record_cost(d, 0) > 0);
            assert_true(record_cost(d + 1, 0) > record_cost(d, 0));
            assert_true(step_cost(2 * d, 200, in_lanes) > step_cost(d, 200, in_lanes));
            assert_true(step_cost(d, 201, in_lanes) > step_cost(d, 200, in_lanes));
        }
    /* The right order of magnitude: 10^11 flop/s. */
    assert_true(step_cost(100, 200, true) > 4e-5 && step_cost(100, 200, true) < 2e-4);
    assert_true(step_cost(1000, 200, false) > 4e-3 && step_cost(1000, 200, false) < 2e-2);

    const struct cost_shape shape = {
        .dimension = 10, .batch_size = 16, .steps = 1000, .records = 64, .in_lanes = true};
    struct cost_shape more = shape;
    const double cost = cost_group(&shape, 80, 2);
    assert_true(cost_group(&shape, 88, 2) > cost && cost_group(&shape, 80, 3) > cost);
    /* An empty lane costs its steps. */
    assert_true(cost_group(&shape, 81, 2) > 0.999 * cost_group(&shape, 88, 2) - 7 * 64 * record_cost(10, 0));
    more.steps = 1001;
    assert_true(cost_group(&more, 80, 2) > cost);
    more = shape;
    more.records = 65;
    assert_true(cost_group(&more, 80, 2) > cost);
    for (int what = 0; what < 2; what++) {
        more = shape;
        *(what == 0 ? &more.data : &more.test) = 1000;
        assert_true(cost_group(&more, 80, 2) > cost);
    }
    assert_true(record_cost(10, 1000) > record_cost(10, 0));

    /* The population's gradient costs less than a look at everything, and nothing is shared. */
    const struct cost_shape exact = {.dimension = 100, .population = true};
    assert_true(cost_step(&exact) < record_cost(100, 0) && cost_width(&exact, 0.03) == 1);
}

static void layouts(void **state)
{
    (void)state;
    assert_true(cost_in_lanes(10, 1) && cost_in_lanes(100, 100) && cost_in_lanes(256, 8));
    assert_false(cost_in_lanes(50, 1) || cost_in_lanes(257, 1000) || cost_in_lanes(4096, 1000));
    assert_int_equal(cost_unit(true), 8);
    assert_int_equal(cost_unit(false), 1);
    for (int in_lanes = 0; in_lanes < 2; in_lanes++)
        for (int64_t d = 1; d <= CONFIG_DIMENSION_MAX; d++) {
            const struct cost_shape shape = {.dimension = d, .in_lanes = in_lanes};
            const int64_t width = cost_width(&shape, 0.03);
            assert_true(width >= cost_unit(in_lanes) && width <= 256 && width % cost_unit(in_lanes) == 0);
            assert_true(cost_width(&shape, 0.2) <= width);
        }
}

/* At least the students, twice, what they are trained with, and their records; and more of whatever there is more of. */
static void memory(void **state)
{
    (void)state;
    const struct cost_shape shape = {
        .dimension = 10, .batch_size = 16, .steps = 1000, .records = 64, .in_lanes = true};
    const int64_t bytes = cost_memory(&shape, 80, 2);
    assert_true(bytes > 8 * (2 * 80 * 100 + 80 * 64 * 8));
    for (int what = 0; what < 5; what++) {
        struct cost_shape more = shape;
        more.dimension += what == 0;
        more.batch_size += what == 1;
        more.records += what == 2;
        more.data += what == 3;
        more.test += what == 4;
        assert_true(cost_memory(&more, 80, 2) > bytes);
    }
    assert_true(cost_memory(&shape, 81, 2) > bytes && cost_memory(&shape, 80, 3) > bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_grow_with_work),
        cmocka_unit_test(layouts),
        cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
