/* forecast: what it learns from groups that ended, and what it takes for granted until then. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "sgdmap/forecast.h"

/* Two dimensions of one family and two replicates each, several groups a family. */
static const char text[] =
    "seed: 1\ngrid: {dimension: [100, 200], step_size: {linear: [0.1, 1], count: 20}, init_scale: "
    "{linear: [0, 1], count: 20}, teacher_norm: 1, batch_size: 200, replicates: 2}\n"
    "training: {steps: 1000, tolerance: 1e-3}\n";

struct fixture {
    struct config config;
    struct grid grid;
    struct forecast *forecast;
};

static void begin(struct fixture *f)
{
    struct error err = {0};
    if (config_parse("test", text, strlen(text), NULL, &f->config, &err) != 0 ||
        grid_expand(&f->config, &f->grid, &err) != 0 || forecast_new(&f->grid, &f->forecast, &err) != 0)
        fail_msg("%s", err.message);
    for (int64_t g = 0; g < f->grid.group_count; g++) {
        struct group group;
        grid_group(&f->grid, g, &group);
        forecast_expect(f->forecast, forecast_bin(f->forecast, &f->grid, g), group.cost);
    }
}

static void end(struct fixture *f)
{
    forecast_free(f->forecast);
    grid_done(&f->grid);
    config_done(&f->config);
}

/* The group takes `slowness` times what is predicted. */
static double train(struct fixture *f, int64_t g, double slowness)
{
    struct group group;
    grid_group(&f->grid, g, &group);
    const double seconds = slowness * group.cost;
    const struct forecast_sample sample = {group.cost, seconds, group.cost, seconds, 0};
    forecast_add(f->forecast, forecast_bin(f->forecast, &f->grid, g), &sample);
    return seconds;
}

static void nothing_known(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    assert_true(fabs(forecast_left(f.forecast) / grid_total_cost(&f.grid) - 1) < 1e-12);
    assert_true(fabs(forecast_cost(f.forecast) / grid_total_cost(&f.grid) - 1) < 1e-12);
    assert_true(forecast_behind(f.forecast) == 0);
    end(&f);
}

/* Each block its own factor, after one group of it; and what is unknown is taken for like what is known. */
static void blocks_have_their_own_speed(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    const double cost[2] = {f.grid.blocks[0].run_cost * (double)f.grid.run_count / 2,
                            f.grid.blocks[1].run_cost * (double)f.grid.run_count / 2};
    double spent = train(&f, 0, 3);
    assert_true(fabs(forecast_left(f.forecast) + spent - 3 * (cost[0] + cost[1])) < 1e-9 * cost[1]);
    spent += train(&f, f.grid.blocks[1].first_group, 0.5);
    assert_true(fabs(forecast_left(f.forecast) + spent - 3 * cost[0] - 0.5 * cost[1]) < 1e-9 * cost[1]);
    end(&f);
}

/* Runs with large steps end early: settled after one family, and well before. */
static void settings_that_end_early(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    double all = 0, spent = 0;
    const int64_t groups = f.grid.blocks[0].family_groups;
    assert_true(groups >= 8);
    for (int64_t g = 0; g < f.grid.group_count; g++) {
        struct group group;
        grid_group(&f.grid, g, &group);
        const struct grid_block *block = &f.grid.blocks[grid_block_of(&f.grid, g)];
        const double place =
            (double)((g - block->first_group) % block->family_groups) / (double)block->family_groups;
        all += group.cost * (place < 0.4 ? 1 : 0.05);
    }
    const int64_t count = f.grid.group_count;
    for (int64_t i = 0; i < count; i++) {
        const int64_t g = grid_group_in_order(&f.grid, i);
        const struct grid_block *block = &f.grid.blocks[grid_block_of(&f.grid, g)];
        const double place =
            (double)((g - block->first_group) % block->family_groups) / (double)block->family_groups;
        spent += train(&f, g, place < 0.4 ? 1 : 0.05);
        const double left = forecast_left(f.forecast);
        if (spent > 0.15 * all)
            assert_true(fabs(left - (all - spent)) < 0.15 * all);
    }
    assert_true(forecast_left(f.forecast) < 1e-9 * all);
    assert_true(fabs(forecast_behind(f.forecast) / forecast_cost(f.forecast) - 1) < 1e-12);
    end(&f);
}

/* What is behind of groups that have not ended counts until one has. */
static void groups_in_progress(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    const struct forecast_sample part = {.progress = 1, .seconds = 2};
    forecast_add(f.forecast, 0, &part);
    assert_true(fabs(forecast_left(f.forecast) - (2 * grid_total_cost(&f.grid) - 2)) < 1e-6);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known),
        cmocka_unit_test(blocks_have_their_own_speed),
        cmocka_unit_test(settings_that_end_early),
        cmocka_unit_test(groups_in_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
