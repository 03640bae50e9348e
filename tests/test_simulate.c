/* schedule and simulate: every group is handed out once, and the simulated times are those of cases that can be worked out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/schedule.h"
#include "sgdmap/simulate.h"

static void make(const char *axes, struct config *config, struct grid *grid)
{
    char text[1024];
    struct error err = {0};
    snprintf(text, sizeof text, "seed: 1\ngrid: {%s}\ntraining: {steps: 2000, tolerance: 1e-3}\n", axes);
    if (config_parse("test", text, strlen(text), NULL, config, &err) != 0 ||
        grid_expand(config, grid, &err) != 0)
        fail_msg("%s", err.message);
}

static const char mixed[] =
    "dimension: [10, 50, 200], step_size: {log: [1e-3, 1], count: 30}, init_scale: {linear: [0, 1], "
    "count: 20}, teacher_norm: 1, batch_size: 100, replicates: 4";

/* Also where some are done; and the last portions are small. */
static void every_group_is_handed_out_once(void **state)
{
    (void)state;
    struct config config;
    struct grid grid;
    make(mixed, &config, &grid);
    for (int with_done = 0; with_done < 2; with_done++)
        for (int64_t ranks = 1; ranks <= 100000; ranks *= 10) {
            uint8_t *done = calloc((size_t)grid.group_count, 1);
            char *seen = calloc((size_t)grid.group_count, 1);
            for (int64_t g = 0; with_done && g < grid.group_count; g++)
                done[g] = g % 3 == 0;
            struct schedule schedule;
            struct portion portion;
            schedule_init(&grid, ranks, with_done ? done : NULL, grid_total_cost(&grid), &schedule);
            int64_t count = 0;
            for (schedule_next(&schedule, &portion); portion.count > 0; schedule_next(&schedule, &portion)) {
                double cost = 0;
                for (int64_t i = 0; i < portion.count; i++) {
                    const int64_t g = grid_group_in_order(&grid, portion.first + i);
                    struct group group;
                    grid_group(&grid, g, &group);
                    cost += group.cost;
                    assert_false(seen[g] || done[g]);
                    seen[g] = 1;
                    count++;
                }
                assert_true(fabs(portion.cost - cost) <= 1e-9 * cost);
                /* Worth its message, unless it is one group or the end is near. */
                assert_true(portion.count == 1 || cost <= fmax(0.1, 1e-4 * (double)ranks));
            }
            int64_t expected = 0;
            for (int64_t g = 0; g < grid.group_count; g++)
                expected += !done[g];
            assert_int_equal(count, expected);
            free(done);
            free(seen);
        }
    grid_done(&grid);
    config_done(&config);
}

static struct simulate_result simulate(const struct grid *grid, int64_t ranks,
                                       const struct simulate_costs *costs, double factor)
{
    double *factors = calloc((size_t)grid->block_count, sizeof *factors);
    struct simulate_result ret;
    struct error err = {0};
    for (int64_t b = 0; b < grid->block_count; b++)
        factors[b] = factor;
    assert_int_equal(simulate_sweep(grid, factors, ranks, costs, &ret, &err), 0);
    free(factors);
    return ret;
}

static void times_that_can_be_worked_out(void **state)
{
    (void)state;
    struct config config;
    struct grid grid;
    make(mixed, &config, &grid);
    const struct simulate_costs nothing = {0};
    const double cost = grid_total_cost(&grid);
    const struct simulate_result one = simulate(&grid, 1, &nothing, 1);
    assert_true(fabs(one.wall / cost - 1) < 1e-9 && fabs(one.efficiency - 1) < 1e-9 && one.master == 0);
    assert_true(fabs(simulate(&grid, 1, &nothing, 2.5).wall / cost - 2.5) < 1e-9);
    /* No schedule beats an even share or the longest group; this one is off by at most the longest (Graham 1966). */
    double longest = 0;
    for (int64_t g = 0; g < grid.group_count; g++) {
        struct group group;
        grid_group(&grid, g, &group);
        longest = fmax(longest, group.cost);
    }
    for (int64_t ranks = 2; ranks <= 4096; ranks *= 2) {
        const double wall = simulate(&grid, ranks, &nothing, 1).wall, share = cost / (double)ranks;
        assert_true(wall >= fmax(share, longest) * (1 - 1e-9) && wall <= share + longest);
        /* What is not free makes it longer. */
        assert_true(simulate(&grid, ranks, &simulate_defaults, 1).wall > wall);
    }
    grid_done(&grid);
    config_done(&config);
}

/* A master that takes a second for a request is the limit: portions follow each other at that pace. */
static void a_slow_master_is_seen(void **state)
{
    (void)state;
    struct config config;
    struct grid grid;
    make(mixed, &config, &grid);
    const struct simulate_costs slow = {.request = 1};
    const struct simulate_result result = simulate(&grid, 1000, &slow, 1);
    assert_true(result.wall >= (double)(result.portions - 1) / 2 && result.efficiency < 0.2);
    grid_done(&grid);
    config_done(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_group_is_handed_out_once),
        cmocka_unit_test(times_that_can_be_worked_out),
        cmocka_unit_test(a_slow_master_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
