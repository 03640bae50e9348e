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
    /* Of an axis's place the values change every so many runs: those of the axes after it, one within the other. */
    int64_t period[AXIS_COUNT], runs = 1;
    for (int a = AXIS_COUNT - 1; a >= 0; a--) {
        if (a == AXIS_INPUT)
            runs *= config->replicates;
        period[a] = runs;
        runs *= axes[a].count;
    }
    assert_int_equal(runs, grid->run_count);
    for (int64_t run = 0; run < grid->run_count; run++) {
        struct setting setting;
        grid_setting(grid, run, &setting);
        assert_int_equal(setting.run, run);
        assert_int_equal(setting.replicate,
                         run / (period[AXIS_INPUT] / config->replicates) % config->replicates);
        for (int a = 0; a < AXIS_COUNT; a++)
            assert_true(setting_value(&setting, (enum axis_id)a) ==
                        axes[a].values[run / period[a] % axes[a].count]);
    }
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
        assert_true(first.gradient == last.gradient && first.data == last.data);
        assert_int_equal(first.input, last.input);
        assert_int_equal(first.replicate, last.replicate);

        const bool population = first.gradient == GRADIENT_POPULATION;
        const int64_t unit = cost_unit(!population && cost_in_lanes(first.dimension, grid->family_runs));
        const struct grid_block *block = &grid->blocks[next / (grid->run_count / grid->block_count)];
        assert_int_equal(block->shape.dimension, first.dimension);
        assert_int_equal(block->shape.batch_size, population ? 0 : first.batch_size);
        assert_int_equal(block->shape.data, first.data);
        assert_true(block->shape.population == population);
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
        assert_int_equal(grid_place_of(grid, index), place);
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
        "dimension: [3, 30], step_size: [0.1, 0.2], init_scale: [0, 1], teacher: [diagonal, gaussian], "
        "teacher_norm: "
        "[0.5, 2], batch_size: [20, 16], data: [online, 100], noise: [0.1, 0], schedule: [cosine, constant], "
        "replicates: 3",
        "dimension: [3, 30], step_size: [0.1, 0.2], init_scale: [0, 1], teacher_norm: 1, batch_size: 20, "
        "gradient: "
        "[minibatch, population], input: [gaussian, sphere], replicates: 3",
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

/* Each group is in one shard; shards have as many groups, to one, of every stretch of the order; and the three ways to ask, and
 * the sums, agree. */
static void check_shards(struct grid *grid, int64_t count)
{
    const int64_t groups = grid->group_count;
    uint8_t *seen = calloc((size_t)groups, 1);
    int64_t runs = 0;
    double cost = 0;
    for (int64_t shard = 0; shard < count; shard++) {
        grid_take_shard(grid, shard, count);
        int64_t in_shard = 0, shard_runs = 0;
        for (int64_t place = 0; place < groups; place++) {
            const int64_t index = grid_group_in_order(grid, place);
            const bool has = grid_has_place(grid, place);
            struct group group;
            grid_group(grid, index, &group);
            assert_int_equal(grid_has_group(grid, index), has);
            assert_int_equal(grid_has_run(grid, group.first_run), has);
            assert_int_equal(grid_has_run(grid, group.first_run + group.run_count - 1), has);
            seen[index] = (uint8_t)(seen[index] + has);
            in_shard += has;
            if ((place + 1) % count == 0)
                assert_int_equal(in_shard, (place + 1) / count);
        }
        int64_t first = 0, end = -1;
        for (int64_t at = 0; grid_next_runs(grid, at, grid->run_count, &first, &end); at = end) {
            assert_true(first >= at && end > first && (at == 0 || count == 1 || first > at || end == at));
            for (int64_t run = at; run < end; run++)
                assert_int_equal(grid_has_run(grid, run), run >= first);
            shard_runs += end - first;
        }
        for (int64_t run = end < 0 ? 0 : end; run < grid->run_count; run++)
            assert_false(grid_has_run(grid, run));
        assert_int_equal(shard_runs, grid->shard_runs);
        runs += grid->shard_runs;
        cost += grid->shard_cost;
    }
    for (int64_t index = 0; index < groups; index++)
        assert_int_equal(seen[index], 1);
    assert_int_equal(runs, grid->run_count);
    assert_true(fabs(cost / grid_total_cost(grid) - 1) < 1e-9);
    free(seen);
    grid_take_shard(grid, 0, 1);
}

static void shards_are_a_partition(void **state)
{
    (void)state;
    static const char *const grids[] = {
        "dimension: 10, step_size: 0.1, init_scale: 1, teacher_norm: 1, batch_size: 16",
        "dimension: [10, 100, 400], step_size: {log: [1e-4, 1], count: 25}, init_scale: {linear: [0, 2], "
        "count: 9}, "
        "teacher_norm: [0.5, 2], link: [none, identity], batch_size: [200, 16], replicates: 4",
    };
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        struct config config = make_config(grids[g]);
        struct grid grid = make_grid(&config);
        assert_true(grid.shard == 0 && grid.shard_count == 1 && grid.shard_runs == grid.run_count);
        for (int64_t count = 1; count <= 9; count++)
            check_shards(&grid, count);
        check_shards(&grid, grid.group_count - 1 > 1 ? grid.group_count - 1 : 2);
        check_shards(&grid, grid.group_count + 3);
        int64_t first, end;
        grid_take_shard(&grid, 0, 2);
        assert_false(grid_next_runs(&grid, 1, 1, &first, &end));
        assert_int_equal(grid_next_runs(&grid, grid.run_count, grid.run_count, &first, &end), false);
        grid_done(&grid);
        config_done(&config);
    }
}

/* What ends early is dealt out like the rest: with as many groups a family as shards, one shard would else have all of those with
 * the largest step sizes. */
static void shards_see_every_part_of_a_family(void **state)
{
    (void)state;
    struct config config =
        make_config("dimension: 10, step_size: {linear: [1, 2], count: 2000}, init_scale: 1, "
                    "teacher_norm: 1, batch_size: 8, replicates: 256");
    struct grid grid = make_grid(&config);
    const int64_t family_groups = grid.blocks[0].family_groups;
    assert_true(family_groups > 3);
    for (int64_t count = family_groups - 1; count <= family_groups + 1; count++)
        for (int64_t shard = 0; shard < count; shard++) {
            int64_t most = 0, least = INT64_MAX;
            grid_take_shard(&grid, shard, count);
            for (int64_t part = 0; part < family_groups; part++) {
                int64_t seen = 0;
                for (int64_t index = part; index < grid.group_count; index += family_groups)
                    seen += grid_has_group(&grid, index);
                most = seen > most ? seen : most;
                least = seen < least ? seen : least;
            }
            /* Of 256 families with probability 1 / count each. */
            const double mean = 256.0 / (double)count, deviation = sqrt(mean);
            assert_true((double)least > mean - 5 * deviation && (double)most < mean + 5 * deviation);
        }
    grid_done(&grid);
    config_done(&config);
}

/* The rule is part of what files mean: these are its values for ever. */
static void the_rule_of_shards_stays(void **state)
{
    (void)state;
    struct config config =
        make_config("dimension: {linear: [1, 24], count: 24}, step_size: 1, init_scale: 1, "
                    "teacher_norm: 1, batch_size: 1");
    struct grid grid = make_grid(&config);
    assert_int_equal(grid.group_count, 24);
    static const char expected[] = "012340123401234340123401";
    char got[25] = "";
    for (int shard = 0; shard < 5; shard++) {
        grid_take_shard(&grid, shard, 5);
        for (int64_t place = 0; place < 24; place++)
            if (grid_has_place(&grid, place))
                got[place] = (char)('0' + shard);
    }
    assert_string_equal(got, expected);
    grid_done(&grid);
    config_done(&config);
}

static void shards_are_parsed(void **state)
{
    (void)state;
    int64_t shard = -7, count = -8;
    static const char *const wrong[] = {
        "",     "1",     "/",     "1/",    "/4",    "4/4",       "5/4",
        "-1/4", "+1/4",  "1/-4",  "0/0",   " 0/4",  "0/4 ",      "0 /4",
        "a/4",  "0/4/1", "1.0/4", "0x0/4", "0/1e3", "0/1000001", "0/99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(grid_parse_shard(wrong[i], &shard, &count));
        assert_true(shard == -7 && count == -8);
    }
    assert_true(grid_parse_shard("0/1", &shard, &count) && shard == 0 && count == 1);
    assert_true(grid_parse_shard("007/010", &shard, &count) && shard == 7 && count == 10);
    assert_true(grid_parse_shard("999999/1000000", &shard, &count) && shard == 999999 &&
                count == GRID_SHARDS_MAX);
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
    assert_non_null(
        strstr(err.message, "more than 1000000 combinations of dimension, batch_size, gradient and data"));
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
        cmocka_unit_test(shards_are_a_partition),
        cmocka_unit_test(shards_see_every_part_of_a_family),
        cmocka_unit_test(the_rule_of_shards_stays),
        cmocka_unit_test(shards_are_parsed),
        cmocka_unit_test(families_of_every_size_are_cut_evenly),
        cmocka_unit_test(few_groups_are_spread_evenly),
        cmocka_unit_test(widths),
        cmocka_unit_test(sizes_beyond_counting_are_refused),
        cmocka_unit_test(huge_grids_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
