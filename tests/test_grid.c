/* grid: the index arithmetic against nested loops, groups against what grid.h promises of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/grid.h"

/* `axes` as the lines under `grid:` in flow style. */
static struct config make_config(const char *axes)
{
    char text[2048];
    snprintf(text, sizeof text, "seed: 1\ngrid: {%s}\ntraining: {steps: 1000, tolerance: 1e-3}\n", axes);
    struct config config;
    struct error err = {0};
    if (config_parse("test", text, strlen(text), NULL, &config, &err) != 0)
        fail_msg("%s", err.message);
    return config;
}

static struct grid make_grid(const struct config *config)
{
    struct grid grid;
    struct error err = {0};
    if (grid_expand(config, &grid, &err) != 0)
        fail_msg("%s", err.message);
    return grid;
}

static void check_settings(const struct config *config, const struct grid *grid)
{
    const struct axis *axes = config->axes;
    int64_t run = 0;
    for (int64_t d = 0; d < axes[AXIS_DIMENSION].count; d++)
        for (int64_t b = 0; b < axes[AXIS_BATCH_SIZE].count; b++)
            for (int64_t x = 0; x < axes[AXIS_INPUT].count; x++)
                for (int64_t r = 0; r < config->replicates; r++)
                    for (int64_t t = 0; t < axes[AXIS_TEACHER_NORM].count; t++)
                        for (int64_t l = 0; l < axes[AXIS_LINK].count; l++)
                            for (int64_t s = 0; s < axes[AXIS_STEP_SIZE].count; s++)
                                for (int64_t i = 0; i < axes[AXIS_INIT_SCALE].count; i++) {
                                    struct setting setting;
                                    grid_setting(grid, run, &setting);
                                    assert_int_equal(setting.run, run);
                                    assert_int_equal(setting.dimension,
                                                     (int64_t)axes[AXIS_DIMENSION].values[d]);
                                    assert_int_equal(setting.batch_size,
                                                     (int64_t)axes[AXIS_BATCH_SIZE].values[b]);
                                    assert_int_equal(setting.input, (int)axes[AXIS_INPUT].values[x]);
                                    assert_int_equal(setting.replicate, r);
                                    assert_int_equal(setting.link, (int)axes[AXIS_LINK].values[l]);
                                    assert_true(setting.teacher_norm == axes[AXIS_TEACHER_NORM].values[t]);
                                    assert_true(setting.step_size == axes[AXIS_STEP_SIZE].values[s]);
                                    assert_true(setting.init_scale == axes[AXIS_INIT_SCALE].values[i]);
                                    run++;
                                }
    assert_int_equal(run, grid->run_count);
}

/* The groups tile the runs; each stays in its family; sizes within a family are whole units but for the last, at most
 * the block's width, and differ by at most a unit. */
static void check_groups(const struct grid *grid)
{
    int64_t next = 0, largest = 0, smallest = 0;
    double total = 0.0;
    for (int64_t g = 0; g < grid->group_count; g++) {
        struct group group;
        grid_group(grid, g, &group);
        assert_int_equal(group.index, g);
        assert_int_equal(group.first_run, next);
        assert_true(group.run_count > 0);
        for (int64_t run = next; run < next + group.run_count; run++)
            assert_int_equal(grid_group_of(grid, run), g);

        struct setting first, last;
        grid_setting(grid, next, &first);
        grid_setting(grid, next + group.run_count - 1, &last);
        assert_int_equal(first.dimension, last.dimension);
        assert_int_equal(first.batch_size, last.batch_size);
        assert_int_equal(first.input, last.input);
        assert_int_equal(first.replicate, last.replicate);

        const int64_t unit = cost_unit(cost_in_lanes(first.dimension, grid->family_runs));
        const struct grid_block *block = &grid->blocks[next / (grid->run_count / grid->block_count)];
        assert_int_equal(block->shape.dimension, first.dimension);
        assert_int_equal(block->shape.batch_size, first.batch_size);
        const int64_t begin = next % grid->family_runs;
        const int64_t end = begin + group.run_count;
        assert_true(end <= grid->family_runs);
        assert_true(group.run_count <= block->width);
        assert_true(end == grid->family_runs || group.run_count % unit == 0);
        if (begin == 0 || group.run_count > largest)
            largest = group.run_count;
        if (begin == 0 || group.run_count < smallest)
            smallest = group.run_count;
        assert_true(largest - smallest <= unit);

        total += group.cost;
        next += group.run_count;
    }
    assert_int_equal(next, grid->run_count);
    assert_true(total > 0.999999 * grid_total_cost(grid) && total < 1.000001 * grid_total_cost(grid));
}

/* The order is a permutation: some of every block, then block after block from expensive to cheap. */
static void check_order(const struct grid *grid)
{
    char *seen = calloc((size_t)grid->group_count, 1);
    int64_t *of_block = calloc((size_t)grid->block_count, sizeof *of_block);
    assert_non_null(seen);
    assert_non_null(of_block);
    double before = 0.0; /* of the block before: its largest group */
    double largest = 0.0;
    int64_t last = -1, blocks = 0, changes = 0;
    for (int64_t place = 0; place < grid->group_count; place++) {
        const int64_t index = grid_group_in_order(grid, place);
        assert_true(index >= 0 && index < grid->group_count);
        assert_int_equal(seen[index], 0);
        seen[index] = 1;
        const int64_t block = grid_block_of(grid, index);
        blocks += of_block[block]++ == 0;
        struct group group;
        grid_group(grid, index, &group);
        assert_true(index >= grid->blocks[block].first_group &&
                    group.first_run >= grid->blocks[block].first_run);
        if (block != last) {
            assert_true(++changes <= 2 * grid->block_count);
            before = last < 0 || changes == grid->block_count + 1 ? INFINITY : largest;
            largest = 0.0;
            last = block;
        }
        largest = fmax(largest, group.cost);
        assert_true(changes <= grid->block_count || largest <= before);
        if (changes == grid->block_count + 1) { /* all blocks have had their pilots, one in fifty */
            assert_int_equal(blocks, grid->block_count);
        }
    }
    free(seen);
    free(of_block);
}

/* Any few groups of a block are like the whole: no stretch of it is left out for long. */
static void few_groups_are_spread_evenly(void **state)
{
    (void)state;
    struct config config = make_config("dimension: 10, step_size: {linear: [1, 2], count: 1000}, init_scale: "
                                       "{linear: [1, 2], count: 1000}, teacher_norm: 1, batch_size: 16");
    struct grid grid = make_grid(&config);
    assert_true(grid.group_count > 1000);
    for (int64_t few = 10; few <= 1000; few *= 10) {
        bool *part = calloc((size_t)few, sizeof *part);
        for (int64_t place = 0; place < 3 * few; place++)
            part[grid_group_in_order(&grid, place) * few / grid.group_count] = true;
        for (int64_t i = 0; i < few; i++)
            assert_true(part[i]);
        free(part);
    }
    grid_done(&grid);
    config_done(&config);
}

static void arithmetic_equals_loops(void **state)
{
    (void)state;
    static const char *const grids[] = {
        "dimension: 10, step_size: 0.1, init_scale: 1, teacher_norm: 1, batch_size: 16",
        "dimension: [10, 20, 50], step_size: {log: [1e-4, 1], count: 25}, init_scale: {linear: [0, 2], "
        "count: 9}, "
        "teacher_norm: [0.5, 2], link: [none, identity], batch_size: [200, 16], replicates: 4",
        "dimension: [100, 1, 2000, 400], step_size: {linear: [0.1, 1], count: 7}, init_scale: [1, 0, 3], "
        "teacher_norm: [3, 1, 2], batch_size: [1, 3, 5], replicates: 3",
        "dimension: {linear: [5, 40], count: 36}, step_size: {linear: [0.1, 1], count: 41}, init_scale: 1, "
        "teacher_norm: 1, batch_size: 8, replicates: 2",
        "dimension: 10, step_size: {linear: [0.1, 1], count: 241}, init_scale: 1, teacher_norm: 1, "
        "batch_size: 8",
    };
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        struct config config = make_config(grids[g]);
        struct grid grid = make_grid(&config);
        check_settings(&config, &grid);
        check_groups(&grid);
        check_order(&grid);
        grid_done(&grid);
        config_done(&config);
    }
}

/* Every family size around the widths, so that no remainder is missed. */
static void families_of_every_size_are_cut_evenly(void **state)
{
    (void)state;
    for (int size = 2; size <= 800; size += size < 300 ? 1 : 37) {
        char axes[256];
        snprintf(axes, sizeof axes,
                 "dimension: [7, 10, 20, 100, 3000], step_size: {linear: [1, 2], count: %d}, init_scale: 1, "
                 "teacher_norm: 1, batch_size: 16, replicates: 2",
                 size);
        struct config config = make_config(axes);
        struct grid grid = make_grid(&config);
        check_groups(&grid);
        grid_done(&grid);
        config_done(&config);
    }
}

static int64_t first_width(const char *axes)
{
    struct config config = make_config(axes);
    struct grid grid = make_grid(&config);
    const int64_t width = grid.blocks[0].width;
    grid_done(&grid);
    config_done(&config);
    return width;
}

/* Large groups share best, and small sweeps are cut finer, so that they have something for every rank. */
static void widths(void **state)
{
    (void)state;
    static const char *const tails[] = {"step_size: {linear: [1, 2], count: 1000}, init_scale: "
                                        "{linear: [0, 1], count: 1000}, teacher_norm: 1, batch_size: 16",
                                        "step_size: {linear: [1, 2], count: 100}, init_scale: 1, "
                                        "teacher_norm: 1, batch_size: 16"};
    const int64_t dimensions[] = {5, 10, 20, 50, 100, 200, 400, 4096};
    int64_t before = INT64_MAX;
    for (size_t i = 0; i < sizeof dimensions / sizeof *dimensions; i++) {
        int64_t width[2];
        for (int t = 0; t < 2; t++) {
            char axes[256];
            snprintf(axes, sizeof axes, "dimension: %lld, %s", (long long)dimensions[i], tails[t]);
            width[t] = first_width(axes);
            assert_int_equal(width[t] % cost_unit(dimensions[i] <= 256), 0);
        }
        assert_true(width[1] <= width[0] && width[0] <= before && width[1] >= 1 && width[0] <= 1024);
        assert_true(dimensions[i] != 10 || (width[0] > 150 && width[1] < 80));
        before = width[0];
    }
}

static void sizes_beyond_counting_are_refused(void **state)
{
    (void)state;
    struct config config = make_config("dimension: [1, 2, 3], step_size: {linear: [1, 2], count: 1000000}, "
                                       "init_scale: {linear: [1, 2], count: 1000000}, teacher_norm: [1, 2], "
                                       "batch_size: [1, 2, 3, 4], replicates: 1000");
    struct grid grid = {.run_count = -7};
    struct error err = {0};
    assert_int_equal(grid_expand(&config, &grid, &err), ERROR_ARGUMENT);
    assert_int_equal(grid.run_count, -7);
    assert_string_equal(
        err.message, "grid: more than 2^53 runs; its axes have dimension 3, batch_size 4, input 1, "
                     "teacher_norm 2, link 1, step_size 1000000, init_scale 1000000, replicates 1000 values");
    config_done(&config);

    /* Beyond 64 bits as well. */
    config =
        make_config("dimension: 1, step_size: {linear: [1, 2], count: 1000000}, "
                    "init_scale: {linear: [1, 2], count: 1000000}, "
                    "teacher_norm: {linear: [1, 2], count: 1000000}, batch_size: 1, replicates: 1000000");
    assert_int_equal(grid_expand(&config, &grid, &err), ERROR_ARGUMENT);
    config_done(&config);

    config = make_config("dimension: {linear: [1, 4096], count: 4096}, step_size: 1, init_scale: 1, "
                         "teacher_norm: 1, batch_size: {linear: [1, 1000], count: 1000}");
    assert_int_equal(grid_expand(&config, &grid, &err), ERROR_ARGUMENT);
    assert_non_null(strstr(err.message, "more than 1000000 pairs of dimension and batch_size"));
    config_done(&config);
}

/* Nothing is stored a run: 9 * 10^15 of them, just below 2^53, and both ends are right. */
static void huge_grids_cost_nothing(void **state)
{
    (void)state;
    struct config config = make_config("dimension: [10, 1], step_size: {linear: [1, 2], count: 1000000}, "
                                       "init_scale: {linear: [1, 2], count: 1000000}, teacher_norm: 1, "
                                       "batch_size: [16, 200, 50], replicates: 1500");
    struct grid grid = make_grid(&config);
    assert_int_equal(grid.run_count, INT64_C(9000000000000000));
    struct setting setting;
    grid_setting(&grid, grid.run_count - 1, &setting);
    assert_int_equal(setting.dimension, 1);
    assert_int_equal(setting.batch_size, 50);
    assert_int_equal(setting.replicate, 1499);
    assert_true(setting.step_size == 2.0 && setting.init_scale == 2.0);
    struct group group;
    grid_group(&grid, grid.group_count - 1, &group);
    assert_int_equal(group.first_run + group.run_count, grid.run_count);
    for (int64_t run = 0; run < grid.run_count; run += grid.run_count / 1009) {
        const int64_t index = grid_group_of(&grid, run);
        grid_group(&grid, index, &group);
        assert_true(group.first_run <= run && run < group.first_run + group.run_count);
    }
    for (int64_t place = 0; place < grid.group_count; place += grid.group_count / 1009)
        assert_true(grid_group_in_order(&grid, place) < grid.group_count);
    grid_done(&grid);
    grid_done(&grid);
    grid_done(NULL);
    config_done(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_equals_loops),
        cmocka_unit_test(families_of_every_size_are_cut_evenly),
        cmocka_unit_test(few_groups_are_spread_evenly),
        cmocka_unit_test(widths),
        cmocka_unit_test(sizes_beyond_counting_are_refused),
        cmocka_unit_test(huge_grids_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
