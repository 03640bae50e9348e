/* grid: run numbers, groups and costs by arithmetic alone. */
#include "sgdmap/grid.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* -- The cost model: seconds on the reference core, measured by tests/bench ------------------------ */

static const double PRODUCT_RATE = 115e9;      /* flop/s of large products */
static const double PRODUCT_HALF_D = 18.0;     /* the dimension at which products reach half of it */
static const double PRODUCT_HALF_BATCH = 4.0;  /* the batch size at which they do */
static const double ACTIVATION_TIME = 0.25e-9; /* s an element of Z: ReLU, its mask, the residual */
static const double GAUSSIAN_TIME = 2.4e-9;    /* s a normal, which a group shares */
static const double STEP_OVERHEAD = 50e-9;     /* s a run and step */
static const double RECORD_RATE = 50e9;        /* flop/s of a record's products, 10 d^3 flop */
static const double RECORD_PAIR_TIME = 16e-9;  /* s a pair of neurons: eight passes over d^2 angles at 2 ns */
static const double RECORD_OVERHEAD = 2e-6;    /* s a record */
static const int64_t LIBRARY_MEMORY = 64 << 20; /* bytes: BLIS's packing buffers, MPI, HDF5 */

/* A double, and the file's run ids in every language, count exactly to 2^53. */
static const int64_t RUN_COUNT_MAX = INT64_C(1) << 53;

/* A block costs memory; a grid with more is a slip of the pen. */
static const int64_t BLOCK_COUNT_MAX = 1000000;

/* Z [batch_size, panel] must stay in the first levels of cache between the products: about 400 columns. */
int64_t panel_width(int64_t dimension, int64_t batch_size)
{
    (void)batch_size;
    const int64_t columns = 400, most = 64;
    const int64_t width = columns / dimension;
    return width < 1 ? 1 : width > most ? most : width;
}

/* Enough students to share the inputs' cost, few enough that A [d, k d] stays in the second level of cache:
 * 256 at small dimensions, 1600 columns elsewhere; in whole panels. */
int64_t group_width(int64_t dimension, int64_t batch_size)
{
    const int64_t panel = panel_width(dimension, batch_size);
    const int64_t small_dimension = 16, small_runs = 256, columns = 1600;
    const int64_t divisor = dimension < small_dimension ? panel : panel * dimension;
    const int64_t panels = ((dimension < small_dimension ? small_runs : columns) + divisor / 2) / divisor;
    return panel * (panels > 1 ? panels : 1);
}

double cost_step(int64_t dimension, int64_t batch_size)
{
    const double d = (double)dimension, b = (double)batch_size;
    const double rate = PRODUCT_RATE * (d / (d + PRODUCT_HALF_D)) * (b / (b + PRODUCT_HALF_BATCH));
    return 4.0 * b * d * d / rate + b * d * ACTIVATION_TIME +
           b * d * GAUSSIAN_TIME / (double)group_width(dimension, batch_size) + STEP_OVERHEAD;
}

double cost_record(int64_t dimension)
{
    const double d = (double)dimension;
    return 10.0 * d * d * d / RECORD_RATE + d * d * RECORD_PAIR_TIME + RECORD_OVERHEAD;
}

/* The arrays of train.c and landscape.c, and the rows of weights on their way to the file. */
int64_t group_memory(int64_t dimension, int64_t batch_size, int64_t runs, int64_t teachers,
                     int64_t record_count)
{
    const int64_t panel = panel_width(dimension, batch_size), slots = (runs + panel - 1) / panel * panel;
    const int64_t matrix = dimension * (dimension + 8);
    const int64_t weights = (slots + 3 * runs) * matrix; /* in training, at the end, and two to be written */
    const int64_t landscapes = teachers * 12 * matrix;
    const int64_t inputs = (2 * dimension + panel * dimension) * (batch_size + 8);
    const int64_t spectral = matrix + 164 * (dimension + 8);
    const int64_t records = runs * record_count * 10; /* the fields, and two for the phases */
    const int64_t reals = weights + landscapes + inputs + spectral + 3 * matrix + records;
    return reals * (int64_t)sizeof(double) + LIBRARY_MEMORY;
}

/* -- A family cut into groups ---------------------------------------------------------------------- */

/* The panels of a family are dealt to its groups: `small` each to the first `small_groups`, one more to the
 * rest. So the last run's panel, which may be partly empty, is in a group of the larger kind. */
struct cut {
    int64_t panel;  /* runs */
    int64_t groups; /* a family */
    int64_t small, small_groups;
};

static struct cut cut_family(int64_t family_runs, int64_t dimension, int64_t batch_size)
{
    const int64_t panel = panel_width(dimension, batch_size);
    const int64_t width = group_width(dimension, batch_size);
    const int64_t panels = (family_runs + panel - 1) / panel;
    const int64_t groups = (family_runs + width - 1) / width;
    return (struct cut){
        .panel = panel,
        .groups = groups,
        .small = panels / groups,
        .small_groups = groups - panels % groups,
    };
}

/* The first run, within the family, of a group; the family's end for g = groups. */
static int64_t cut_begin(const struct cut *cut, int64_t family_runs, int64_t g)
{
    const int64_t larger = g > cut->small_groups ? g - cut->small_groups : 0;
    const int64_t begin = (g * cut->small + larger) * cut->panel;
    return begin < family_runs ? begin : family_runs;
}

static int64_t cut_find(const struct cut *cut, int64_t run)
{
    const int64_t panel = run / cut->panel;
    const int64_t small_panels = cut->small * cut->small_groups;
    if (panel < small_panels)
        return panel / cut->small;
    return cut->small_groups + (panel - small_panels) / (cut->small + 1);
}

/* -- The grid -------------------------------------------------------------------------------------- */

static int64_t axis_count(const struct grid *grid, enum axis_id axis)
{
    return grid->config->axes[axis].count;
}

static int fail_size(const struct config *config, const char *what, struct error *err)
{
    char counts[256] = "";
    size_t used = 0;
    for (int axis = 0; axis < AXIS_COUNT; axis++)
        used += (size_t)snprintf(counts + used, sizeof counts - used, "%s %lld, ",
                                 axis_name((enum axis_id)axis), (long long)config->axes[axis].count);
    return error_set(err, ERROR_ARGUMENT, "grid: more than %s; its axes have %sreplicates %lld values", what,
                     counts, (long long)config->replicates);
}

static bool multiply(int64_t *product, int64_t factor, int64_t most)
{
    return !__builtin_mul_overflow(*product, factor, product) && *product <= most;
}

struct ranked {
    double cost;
    int64_t block;
};

static int compare_ranked(const void *a_ranked, const void *b_ranked)
{
    const struct ranked *a = a_ranked, *b = b_ranked;
    if (a->cost != b->cost)
        return a->cost > b->cost ? -1 : 1;
    return a->block < b->block ? -1 : a->block > b->block;
}

/* Fills by_cost and by_cost_first. */
static int rank_blocks(struct grid *grid, struct error *err)
{
    struct ranked *ranked = malloc((size_t)grid->block_count * sizeof *ranked);
    if (ranked == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a grid of %lld blocks",
                         (long long)grid->block_count);
    for (int64_t b = 0; b < grid->block_count; b++) {
        const struct grid_block *block = &grid->blocks[b];
        const struct cut cut = cut_family(grid->family_runs, block->dimension, block->batch_size);
        const int64_t last = cut_begin(&cut, grid->family_runs, cut.groups - 1);
        const int64_t first_size = cut_begin(&cut, grid->family_runs, 1);
        const int64_t last_size = grid->family_runs - last;
        ranked[b] = (struct ranked){
            .cost = block->run_cost * (double)(first_size > last_size ? first_size : last_size),
            .block = b,
        };
    }
    qsort(ranked, (size_t)grid->block_count, sizeof *ranked, compare_ranked);
    int64_t groups = 0;
    for (int64_t i = 0; i < grid->block_count; i++) {
        const struct grid_block *block = &grid->blocks[ranked[i].block];
        grid->by_cost[i] = ranked[i].block;
        grid->by_cost_first[i] = groups;
        groups += block->family_groups * block->family_count;
    }
    free(ranked);
    return 0;
}

int grid_expand(const struct config *config, struct grid *ret, struct error *err)
{
    const struct axis *axes = config->axes;
    __attribute__((cleanup(grid_done))) struct grid grid = {
        .config = config, .run_count = 1, .family_runs = 1, .block_count = 1};
    int64_t families = 1; /* a block */
    bool fits = multiply(&families, axes[AXIS_INPUT].count, RUN_COUNT_MAX) &&
                multiply(&families, config->replicates, RUN_COUNT_MAX) &&
                multiply(&grid.family_runs, axes[AXIS_TEACHER_NORM].count, RUN_COUNT_MAX) &&
                multiply(&grid.family_runs, axes[AXIS_LINK].count, RUN_COUNT_MAX) &&
                multiply(&grid.family_runs, axes[AXIS_STEP_SIZE].count, RUN_COUNT_MAX) &&
                multiply(&grid.family_runs, axes[AXIS_INIT_SCALE].count, RUN_COUNT_MAX) &&
                multiply(&grid.block_count, axes[AXIS_DIMENSION].count, RUN_COUNT_MAX) &&
                multiply(&grid.block_count, axes[AXIS_BATCH_SIZE].count, RUN_COUNT_MAX) &&
                multiply(&grid.run_count, families, RUN_COUNT_MAX) &&
                multiply(&grid.run_count, grid.family_runs, RUN_COUNT_MAX) &&
                multiply(&grid.run_count, grid.block_count, RUN_COUNT_MAX);
    if (!fits)
        return fail_size(config, "2^53 runs", err);
    if (grid.block_count > BLOCK_COUNT_MAX)
        return fail_size(config, "1000000 pairs of dimension and batch_size", err);

    const size_t blocks = (size_t)grid.block_count;
    grid.blocks = calloc(blocks, sizeof *grid.blocks);
    grid.by_cost = calloc(blocks, sizeof *grid.by_cost);
    grid.by_cost_first = calloc(blocks, sizeof *grid.by_cost_first);
    if (grid.blocks == NULL || grid.by_cost == NULL || grid.by_cost_first == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a grid of %zu blocks", blocks);

    for (int64_t b = 0; b < grid.block_count; b++) {
        const int64_t d = (int64_t)axes[AXIS_DIMENSION].values[b / axes[AXIS_BATCH_SIZE].count];
        const int64_t batch = (int64_t)axes[AXIS_BATCH_SIZE].values[b % axes[AXIS_BATCH_SIZE].count];
        const struct cut cut = cut_family(grid.family_runs, d, batch);
        /* Products are made in whole panels, also where the family's last is not full. */
        const int64_t slots = (grid.family_runs + cut.panel - 1) / cut.panel * cut.panel;
        const double steps = (double)config->steps * (double)slots / (double)grid.family_runs;
        grid.blocks[b] = (struct grid_block){
            .dimension = d,
            .batch_size = batch,
            .first_run = b * families * grid.family_runs,
            .first_group = grid.group_count,
            .family_groups = cut.groups,
            .family_count = families,
            .run_cost = steps * cost_step(d, batch) + (double)config->record_count * cost_record(d),
        };
        grid.group_count += cut.groups * families;
    }
    TRY(rank_blocks(&grid, err));
    *ret = grid;
    grid = (struct grid){0};
    return 0;
}

void grid_done(struct grid *grid)
{
    if (grid == NULL)
        return;
    free(grid->blocks);
    free(grid->by_cost);
    free(grid->by_cost_first);
    *grid = (struct grid){0};
}

/* Takes the fastest remaining digit off a run's number. */
static int64_t take_digit(int64_t *number, int64_t radix)
{
    const int64_t digit = *number % radix;
    *number /= radix;
    return digit;
}

static double take_value(const struct grid *grid, int64_t *number, enum axis_id axis)
{
    return grid->config->axes[axis].values[take_digit(number, axis_count(grid, axis))];
}

void grid_setting(const struct grid *grid, int64_t run, struct setting *ret)
{
    assert(run >= 0 && run < grid->run_count);
    int64_t rest = run;
    ret->run = run;
    ret->init_scale = take_value(grid, &rest, AXIS_INIT_SCALE);
    ret->step_size = take_value(grid, &rest, AXIS_STEP_SIZE);
    ret->link = (enum link_kind)take_value(grid, &rest, AXIS_LINK);
    ret->teacher_norm = take_value(grid, &rest, AXIS_TEACHER_NORM);
    ret->replicate = take_digit(&rest, grid->config->replicates);
    ret->input = (enum input_kind)take_value(grid, &rest, AXIS_INPUT);
    ret->batch_size = (int64_t)take_value(grid, &rest, AXIS_BATCH_SIZE);
    ret->dimension = (int64_t)take_value(grid, &rest, AXIS_DIMENSION);
}

/* The last i of `count` with first(i) <= value, where first(0) = 0. */
static int64_t last_not_above(const struct grid *grid, int64_t value,
                              int64_t (*first)(const struct grid *, int64_t))
{
    int64_t low = 0, high = grid->block_count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (first(grid, middle) <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int64_t block_first_group(const struct grid *grid, int64_t b)
{
    return grid->blocks[b].first_group;
}

static int64_t ranked_first_group(const struct grid *grid, int64_t i)
{
    return grid->by_cost_first[i];
}

void grid_group(const struct grid *grid, int64_t index, struct group *ret)
{
    assert(index >= 0 && index < grid->group_count);
    const struct grid_block *block = &grid->blocks[last_not_above(grid, index, block_first_group)];
    const struct cut cut = cut_family(grid->family_runs, block->dimension, block->batch_size);
    const int64_t family = (index - block->first_group) / cut.groups;
    const int64_t g = (index - block->first_group) % cut.groups;
    const int64_t begin = cut_begin(&cut, grid->family_runs, g);
    const int64_t count = cut_begin(&cut, grid->family_runs, g + 1) - begin;
    *ret = (struct group){
        .index = index,
        .first_run = block->first_run + family * grid->family_runs + begin,
        .run_count = count,
        .cost = (double)count * block->run_cost,
    };
}

int64_t grid_group_by_cost(const struct grid *grid, int64_t rank)
{
    assert(rank >= 0 && rank < grid->group_count);
    const int64_t i = last_not_above(grid, rank, ranked_first_group);
    const struct grid_block *block = &grid->blocks[grid->by_cost[i]];
    const struct cut cut = cut_family(grid->family_runs, block->dimension, block->batch_size);
    const int64_t large_groups = cut.groups - cut.small_groups;
    /* The larger groups of all families, then the smaller. */
    int64_t within = rank - grid->by_cost_first[i];
    if (within < large_groups * block->family_count)
        return block->first_group + within / large_groups * cut.groups + cut.small_groups +
               within % large_groups;
    within -= large_groups * block->family_count;
    return block->first_group + within / cut.small_groups * cut.groups + within % cut.small_groups;
}

int64_t grid_group_of(const struct grid *grid, int64_t run)
{
    assert(run >= 0 && run < grid->run_count);
    const int64_t block_runs = grid->run_count / grid->block_count;
    const struct grid_block *block = &grid->blocks[run / block_runs];
    const struct cut cut = cut_family(grid->family_runs, block->dimension, block->batch_size);
    const int64_t family = (run - block->first_run) / grid->family_runs;
    const int64_t within = (run - block->first_run) % grid->family_runs;
    return block->first_group + family * cut.groups + cut_find(&cut, within);
}

double grid_total_cost(const struct grid *grid)
{
    double cost = 0.0;
    for (int64_t b = 0; b < grid->block_count; b++) {
        const struct grid_block *block = &grid->blocks[b];
        cost += block->run_cost * (double)block->family_count * (double)grid->family_runs;
    }
    return cost;
}

int64_t grid_memory(const struct grid *grid)
{
    const int64_t teachers = grid->config->axes[AXIS_TEACHER_NORM].count;
    const int64_t teacher_runs = grid->family_runs / teachers; /* neighbours with one teacher */
    int64_t most = 0;
    for (int64_t b = 0; b < grid->block_count; b++) {
        const struct grid_block *block = &grid->blocks[b];
        const struct cut cut = cut_family(grid->family_runs, block->dimension, block->batch_size);
        int64_t runs = (cut.small + (cut.small_groups < cut.groups)) * cut.panel;
        if (runs > grid->family_runs)
            runs = grid->family_runs;
        const int64_t spanned = (runs - 1) / teacher_runs + 2;
        const int64_t bytes =
            group_memory(block->dimension, block->batch_size, runs, spanned < teachers ? spanned : teachers,
                         grid->config->record_count);
        most = bytes > most ? bytes : most;
    }
    return most;
}
