/* grid: run numbers and groups by arithmetic alone. */
#include "sgdmap/grid.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

__extension__ typedef __int128 wide; /* a product of two numbers of groups */

/* A double, and the file's run ids in every language, count exactly to 2^53. */
static const int64_t RUN_COUNT_MAX = INT64_C(1) << 53;

/* A block costs memory; a grid with more is a slip of the pen. */
static const int64_t BLOCK_COUNT_MAX = 1000000;

/* -- A family cut into groups ---------------------------------------------------------------------- */

/* The units of a family (runs that are computed at the cost of one) are dealt to its groups: `small` each to the first
 * `small_groups`, one more to the rest. So the last unit, which may be partly empty, is in a group of the larger kind. */
struct cut {
    int64_t unit;   /* runs */
    int64_t groups; /* a family */
    int64_t small, small_groups;
};

static struct cut cut_family(int64_t family_runs, const struct grid_block *block)
{
    const int64_t unit = cost_unit(block->shape.in_lanes);
    const int64_t units = (family_runs + unit - 1) / unit;
    const int64_t groups = (family_runs + block->width - 1) / block->width;
    return (struct cut){
        .unit = unit,
        .groups = groups,
        .small = units / groups,
        .small_groups = groups - units % groups,
    };
}

/* The first run, within the family, of a group; the family's end for g = groups. */
static int64_t cut_begin(const struct cut *cut, int64_t family_runs, int64_t g)
{
    const int64_t larger = g > cut->small_groups ? g - cut->small_groups : 0;
    const int64_t begin = (g * cut->small + larger) * cut->unit;
    return begin < family_runs ? begin : family_runs;
}

static int64_t group_runs(const struct cut *cut, int64_t family_runs, int64_t g)
{
    return cut_begin(cut, family_runs, g + 1) - cut_begin(cut, family_runs, g);
}

static int64_t cut_find(const struct cut *cut, int64_t run)
{
    const int64_t unit = run / cut->unit;
    const int64_t small_units = cut->small * cut->small_groups;
    if (unit < small_units)
        return unit / cut->small;
    return cut->small_groups + (unit - small_units) / (cut->small + 1);
}

/* -- The grid -------------------------------------------------------------------------------------- */

static int64_t axis_count(const struct grid *grid, enum axis_id axis)
{
    return grid->config->axes[axis].count;
}

static int fail_size(const struct config *config, const char *what, struct error *err)
{
    char counts[512] = "";
    size_t used = 0;
    for (int axis = 0; axis < AXIS_COUNT; axis++)
        if (config_has_axis(config, (enum axis_id)axis))
            used += (size_t)snprintf(counts + used, sizeof counts - used, "%s %lld, ",
                                     axis_name((enum axis_id)axis), (long long)config->axes[axis].count);
    return error_set(err, ERROR_ARGUMENT, "grid: more than %s; its axes have %sreplicates %lld values", what,
                     counts, (long long)config->replicates);
}

static bool multiply(int64_t *product, int64_t factor, int64_t most)
{
    return !__builtin_mul_overflow(*product, factor, product) && *product <= most;
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

/* Of a group of so many runs: neighbours in the family, of which those with one teacher are neighbours. */
static int64_t group_teachers(const struct grid *grid, int64_t runs)
{
    const int64_t teachers = axis_count(grid, AXIS_TEACHER) * axis_count(grid, AXIS_TEACHER_NORM),
                  with_one = grid->family_runs / teachers;
    const int64_t spanned = (runs + with_one - 1) / with_one;
    return spanned < teachers ? spanned : teachers;
}

static double group_cost(const struct grid *grid, const struct grid_block *block, int64_t runs)
{
    return cost_group(&block->shape, runs, group_teachers(grid, runs));
}

/* All groups of a family: the small ones, the larger, and the last. */
static double family_cost(const struct grid *grid, const struct grid_block *block)
{
    const struct cut cut = cut_family(grid->family_runs, block);
    const int64_t small = group_runs(&cut, grid->family_runs, 0);
    const int64_t last = group_runs(&cut, grid->family_runs, cut.groups - 1);
    const int64_t larger = cut.groups - cut.small_groups;
    if (larger == 0)
        return (double)(cut.groups - 1) * group_cost(grid, block, small) + group_cost(grid, block, last);
    return (double)cut.small_groups * group_cost(grid, block, small) +
           (double)(larger - 1) * group_cost(grid, block, (cut.small + 1) * cut.unit) +
           group_cost(grid, block, last);
}

/* Groups share what is common best when they are large, but few or long groups leave ranks idle at the sweep's end. Groups of
 * short runs are made larger still, so that their begin and end do not count. */
static void choose_width(const struct grid *grid, struct grid_block *block, double total)
{
    static const double SHARE_IDEAL = 0.03, SHARE_MOST = 0.2, GROUPS = 128, LONGEST = 300, SHORTEST = 0.05;
    enum { WIDTH_MAX = 1024 };
    const double most = fmin(total / GROUPS, LONGEST);
    const int64_t least = cost_width(&block->shape, SHARE_MOST), unit = cost_unit(block->shape.in_lanes);
    block->width = cost_width(&block->shape, SHARE_IDEAL);
    while (block->width > least && group_cost(grid, block, block->width) > most)
        block->width -= unit;
    while (block->width < WIDTH_MAX && group_cost(grid, block, block->width + unit) < fmin(most, SHORTEST))
        block->width += unit;
}

/* Coprime to `count` and near the golden section of it: the multiples, modulo count, visit all and are spread evenly at any
 * time. */
static int64_t spread_stride(int64_t count)
{
    int64_t stride = (int64_t)(0.6180339887498949 * (double)count);
    for (;; ++stride) {
        int64_t a = count, b = stride > 0 ? stride : 1;
        while (b != 0) {
            const int64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return stride > 0 ? stride : 1;
    }
}

/* The number in [0, count) whose product with `stride` is 1 modulo count. */
static int64_t invert(int64_t stride, int64_t count)
{
    assert(count > 0);
    int64_t a = stride, b = count, x = 1, y = 0;
    while (b != 0) {
        const int64_t quotient = a / b, rest = a % b, next = x - quotient * y;
        a = b;
        b = rest;
        x = y;
        y = next;
    }
    return (x % count + count) % count;
}

/* How many groups of a block show what it is like: one in fifty, or a few if they are cheap beside the sweep. */
static int64_t pilot_count(const struct grid *grid, int64_t count, double cost, double total)
{
    static const double SHARE = 0.25, FEW = 12;
    const double cheap = fmin(FEW, floor(SHARE * total / (double)grid->block_count / cost));
    const int64_t pilots = (int64_t)fmax(cheap, ceil((double)count / 50));
    return pilots < count ? pilots : count;
}

/* Fills stretches. */
static int order_blocks(struct grid *grid, struct error *err)
{
    const double total = grid_total_cost(grid);
    struct ranked *ranked = malloc((size_t)grid->block_count * sizeof *ranked);
    if (ranked == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a grid of %lld blocks",
                         (long long)grid->block_count);
    for (int64_t b = 0; b < grid->block_count; b++) {
        const struct grid_block *block = &grid->blocks[b];
        const struct cut cut = cut_family(grid->family_runs, block);
        const double first = group_cost(grid, block, group_runs(&cut, grid->family_runs, 0));
        const double last = group_cost(grid, block, group_runs(&cut, grid->family_runs, cut.groups - 1));
        ranked[b] = (struct ranked){.cost = fmax(first, last), .block = b};
    }
    qsort(ranked, (size_t)grid->block_count, sizeof *ranked, compare_ranked);
    int64_t groups = 0;
    for (int64_t i = 0; i < 2 * grid->block_count; i++) {
        const struct ranked *r = &ranked[i % grid->block_count];
        const int64_t b = r->block;
        const int64_t count = grid->blocks[b].family_groups * grid->blocks[b].family_count;
        const int64_t pilots = pilot_count(grid, count, r->cost, total);
        const bool pilot = i < grid->block_count;
        grid->stretches[i] = (struct grid_stretch){.block = b, .first = groups, .from = pilot ? 0 : pilots};
        grid->blocks[b].place = i % grid->block_count;
        groups += pilot ? pilots : count - pilots;
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
    bool fits = multiply(&families, config->replicates, RUN_COUNT_MAX);
    for (int a = 0; a < AXIS_COUNT; a++) {
        int64_t *product = a <= AXIS_DATA    ? &grid.block_count
                           : a == AXIS_INPUT ? &families
                                             : &grid.family_runs;
        fits = fits && multiply(product, axes[a].count, RUN_COUNT_MAX);
    }
    fits = fits && multiply(&grid.run_count, families, RUN_COUNT_MAX) &&
           multiply(&grid.run_count, grid.family_runs, RUN_COUNT_MAX) &&
           multiply(&grid.run_count, grid.block_count, RUN_COUNT_MAX);
    if (!fits)
        return fail_size(config, "2^53 runs", err);
    if (grid.block_count > BLOCK_COUNT_MAX)
        return fail_size(config, "1000000 combinations of dimension, batch_size, gradient and data", err);

    const size_t blocks = (size_t)grid.block_count;
    grid.blocks = calloc(blocks, sizeof *grid.blocks);
    grid.stretches = calloc(2 * blocks, sizeof *grid.stretches);
    if (grid.blocks == NULL || grid.stretches == NULL) {
        grid_done(&grid);
        return error_set(err, ERROR_MEMORY, "out of memory for a grid of %zu blocks", blocks);
    }

    double total = 0;
    for (int64_t b = 0; b < grid.block_count; b++) {
        struct grid_block *block = &grid.blocks[b];
        int64_t rest = b;
        const int64_t data = (int64_t)take_value(&grid, &rest, AXIS_DATA);
        const bool population = take_value(&grid, &rest, AXIS_GRADIENT) == GRADIENT_POPULATION;
        const int64_t batch_size = (int64_t)take_value(&grid, &rest, AXIS_BATCH_SIZE);
        const int64_t d = (int64_t)take_value(&grid, &rest, AXIS_DIMENSION);
        *block = (struct grid_block){
            .shape = {.dimension = d,
                      .batch_size = population ? 0 : batch_size,
                      .steps = config->steps,
                      .records = config->record_count,
                      .in_lanes = !population && cost_in_lanes(d, grid.family_runs),
                      .population = population,
                      .data = data,
                      .test = config->test_samples},
            .first_run = b * families * grid.family_runs,
            .family_count = families,
        };
        choose_width(&grid, block, INFINITY);
        total += (double)families * family_cost(&grid, block);
    }
    for (int64_t b = 0; b < grid.block_count; b++) {
        struct grid_block *block = &grid.blocks[b];
        choose_width(&grid, block, total);
        block->first_group = grid.group_count;
        block->family_groups = cut_family(grid.family_runs, block).groups;
        block->stride = spread_stride(block->family_groups);
        block->inverse = invert(block->stride, block->family_groups);
        block->run_cost = family_cost(&grid, block) / (double)grid.family_runs;
        grid.group_count += block->family_groups * families;
    }
    TRY(order_blocks(&grid, err));
    grid_take_shard(&grid, 0, 1);
    *ret = grid;
    grid = (struct grid){0};
    return 0;
}

void grid_done(struct grid *grid)
{
    if (grid == NULL)
        return;
    free(grid->blocks);
    free(grid->stretches);
    *grid = (struct grid){0};
}

void grid_setting(const struct grid *grid, int64_t run, struct setting *ret)
{
    assert(run >= 0 && run < grid->run_count);
    int64_t rest = run;
    ret->run = run;
    ret->init_scale = take_value(grid, &rest, AXIS_INIT_SCALE);
    ret->step_size = take_value(grid, &rest, AXIS_STEP_SIZE);
    ret->schedule = (enum schedule_kind)take_value(grid, &rest, AXIS_SCHEDULE);
    ret->noise = take_value(grid, &rest, AXIS_NOISE);
    ret->link = (enum link_kind)take_value(grid, &rest, AXIS_LINK);
    ret->teacher_norm = take_value(grid, &rest, AXIS_TEACHER_NORM);
    ret->teacher = (enum teacher_kind)take_value(grid, &rest, AXIS_TEACHER);
    ret->replicate = take_digit(&rest, grid->config->replicates);
    ret->input = (enum input_kind)take_value(grid, &rest, AXIS_INPUT);
    ret->data = (int64_t)take_value(grid, &rest, AXIS_DATA);
    ret->gradient = (enum gradient_kind)take_value(grid, &rest, AXIS_GRADIENT);
    ret->batch_size = (int64_t)take_value(grid, &rest, AXIS_BATCH_SIZE);
    ret->dimension = (int64_t)take_value(grid, &rest, AXIS_DIMENSION);
}

double setting_value(const struct setting *setting, enum axis_id axis)
{
    const double values[AXIS_COUNT] = {[AXIS_DIMENSION] = (double)setting->dimension,
                                       [AXIS_BATCH_SIZE] = (double)setting->batch_size,
                                       [AXIS_GRADIENT] = setting->gradient,
                                       [AXIS_DATA] = (double)setting->data,
                                       [AXIS_INPUT] = setting->input,
                                       [AXIS_TEACHER] = setting->teacher,
                                       [AXIS_TEACHER_NORM] = setting->teacher_norm,
                                       [AXIS_LINK] = setting->link,
                                       [AXIS_NOISE] = setting->noise,
                                       [AXIS_SCHEDULE] = setting->schedule,
                                       [AXIS_STEP_SIZE] = setting->step_size,
                                       [AXIS_INIT_SCALE] = setting->init_scale};
    return values[axis];
}

/* The last i of `count` with first(i) <= value, where first(0) = 0. */
static int64_t last_not_above(const struct grid *grid, int64_t count, int64_t value,
                              int64_t (*first)(const struct grid *, int64_t))
{
    int64_t low = 0, high = count;
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

static int64_t stretch_first(const struct grid *grid, int64_t i)
{
    return grid->stretches[i].first;
}

int64_t grid_block_of(const struct grid *grid, int64_t group)
{
    assert(group >= 0 && group < grid->group_count);
    return last_not_above(grid, grid->block_count, group, block_first_group);
}

void grid_group(const struct grid *grid, int64_t index, struct group *ret)
{
    assert(index >= 0 && index < grid->group_count);
    const struct grid_block *block = &grid->blocks[grid_block_of(grid, index)];
    const struct cut cut = cut_family(grid->family_runs, block);
    const int64_t family = (index - block->first_group) / cut.groups;
    const int64_t g = (index - block->first_group) % cut.groups;
    const int64_t begin = cut_begin(&cut, grid->family_runs, g);
    const int64_t count = cut_begin(&cut, grid->family_runs, g + 1) - begin;
    *ret = (struct group){
        .index = index,
        .first_run = block->first_run + family * grid->family_runs + begin,
        .run_count = count,
        .cost = group_cost(grid, block, count),
    };
}

int64_t grid_group_in_order(const struct grid *grid, int64_t place)
{
    assert(place >= 0 && place < grid->group_count);
    const struct grid_stretch *stretch =
        &grid->stretches[last_not_above(grid, 2 * grid->block_count, place, stretch_first)];
    const struct grid_block *block = &grid->blocks[stretch->block];
    const int64_t within = stretch->from + place - stretch->first;
    /* Every round visits each place of a family once, in changing families. */
    const int64_t round = within / block->family_groups;
    const int64_t place_in_family = (int64_t)((wide)within * block->stride % block->family_groups);
    const int64_t family = (place_in_family + round) % block->family_count;
    return block->first_group + family * block->family_groups + place_in_family;
}

int64_t grid_place_of(const struct grid *grid, int64_t group)
{
    const struct grid_block *block = &grid->blocks[grid_block_of(grid, group)];
    const int64_t family = (group - block->first_group) / block->family_groups;
    const int64_t place_in_family = (group - block->first_group) % block->family_groups;
    const int64_t shift = (family - place_in_family) % block->family_count;
    const int64_t round = shift < 0 ? shift + block->family_count : shift;
    const int64_t step = (int64_t)((wide)place_in_family * block->inverse % block->family_groups);
    const int64_t within = round * block->family_groups + step;
    const struct grid_stretch *pilots = &grid->stretches[block->place];
    const struct grid_stretch *rest = pilots + grid->block_count;
    return within < rest->from ? pilots->first + within : rest->first + within - rest->from;
}

int64_t grid_group_of(const struct grid *grid, int64_t run)
{
    assert(run >= 0 && run < grid->run_count);
    const int64_t block_runs = grid->run_count / grid->block_count;
    const struct grid_block *block = &grid->blocks[run / block_runs];
    const struct cut cut = cut_family(grid->family_runs, block);
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
    int64_t most = 0;
    for (int64_t b = 0; b < grid->block_count; b++) {
        const struct grid_block *block = &grid->blocks[b];
        const int64_t runs = block->width < grid->family_runs ? block->width : grid->family_runs;
        const int64_t bytes = cost_memory(&block->shape, runs, group_teachers(grid, runs) + 1);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* -- Shards ---------------------------------------------------------------------------------------- */

/* A number of decimal digits alone; -1 if it is none, or beyond GRID_SHARDS_MAX. */
static int64_t parse_count(const char **text)
{
    int64_t value = 0;
    const char *at = *text;
    for (; *at >= '0' && *at <= '9' && value <= GRID_SHARDS_MAX; at++)
        value = 10 * value + (*at - '0');
    const bool number = at != *text && value <= GRID_SHARDS_MAX;
    *text = at;
    return number ? value : -1;
}

bool grid_parse_shard(const char *text, int64_t *shard, int64_t *count)
{
    const int64_t i = parse_count(&text);
    if (*text != '/')
        return false;
    text++;
    const int64_t n = parse_count(&text);
    if (*text != '\0' || i < 0 || i >= n)
        return false;
    *shard = i;
    *count = n;
    return true;
}

/* The shard at which a round begins: a hash, so that it has nothing to do with what the grid repeats. Part of what files mean: it
 * never changes. (The finalizer of SplitMix64.) */
static int64_t round_start(int64_t round, int64_t count)
{
    uint64_t x = (uint64_t)round + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return (int64_t)(x % (uint64_t)count);
}

bool grid_has_place(const struct grid *grid, int64_t place)
{
    const int64_t n = grid->shard_count;
    return n == 1 || (place % n + round_start(place / n, n)) % n == grid->shard;
}

bool grid_has_group(const struct grid *grid, int64_t group)
{
    return grid->shard_count == 1 || grid_has_place(grid, grid_place_of(grid, group));
}

bool grid_has_run(const struct grid *grid, int64_t run)
{
    return grid->shard_count == 1 || grid_has_group(grid, grid_group_of(grid, run));
}

void grid_take_shard(struct grid *grid, int64_t shard, int64_t count)
{
    assert(0 <= shard && shard < count && count <= GRID_SHARDS_MAX);
    grid->shard = shard;
    grid->shard_count = count;
    grid->shard_runs = count == 1 ? grid->run_count : 0;
    grid->shard_cost = count == 1 ? grid_total_cost(grid) : 0;
    for (int64_t round = 0; count > 1 && round * count < grid->group_count; round++) {
        const int64_t place = round * count + (shard - round_start(round, count) + count) % count;
        if (place >= grid->group_count)
            continue;
        const int64_t index = grid_group_in_order(grid, place);
        struct group group;
        grid_group(grid, index, &group);
        grid->shard_runs += group.run_count;
        grid->shard_cost += (double)group.run_count * grid->blocks[grid_block_of(grid, index)].run_cost;
    }
}

bool grid_next_runs(const struct grid *grid, int64_t run, int64_t end, int64_t *ret_first, int64_t *ret_end)
{
    bool found = grid->shard_count == 1 && run < end;
    *ret_first = run;
    *ret_end = end;
    if (grid->shard_count == 1 || run >= end)
        return found;
    for (int64_t index = grid_group_of(grid, run); index < grid->group_count; index++) {
        struct group group;
        grid_group(grid, index, &group);
        if (group.first_run >= end)
            break;
        const bool has = grid_has_group(grid, index);
        if (has && !found)
            *ret_first = group.first_run > run ? group.first_run : run;
        if (!has && found) {
            *ret_end = group.first_run;
            break;
        }
        found = found || has;
    }
    return found;
}
