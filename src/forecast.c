#include "sgdmap/forecast.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* Bins of all blocks together, at the most, and of one. */
enum { BINS_MAX = 1000 * 1000, BLOCK_BINS_MAX = 256 };

struct bin {
    double cost;
    double group_cost; /* of one of its groups */
    struct forecast_sample sum;
};

struct block {
    int64_t first_bin;
    struct forecast_sample sum;
};

struct forecast {
    int64_t block_count, bin_count;
    int64_t block_bins_max;
    struct block *blocks; /* [block_count + 1], the last for the end of the bins */
    struct bin *bins;     /* [bin_count] */
    struct forecast_sample sum;
    double cost;
};

/* A block's bins divide a family: its families differ in noise alone. */
static int64_t bins_of(const struct forecast *f, const struct grid_block *block)
{
    return block->family_groups < f->block_bins_max ? block->family_groups : f->block_bins_max;
}

int forecast_new(const struct grid *grid, struct forecast **ret, struct error *err)
{
    struct forecast *f = calloc(1, sizeof *f);
    if (f == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for the forecast");
    f->block_count = grid->block_count;
    f->block_bins_max = BINS_MAX / grid->block_count; /* at least one: see BLOCK_COUNT_MAX in grid.c */
    if (f->block_bins_max > BLOCK_BINS_MAX)
        f->block_bins_max = BLOCK_BINS_MAX;
    for (int64_t b = 0; b < grid->block_count; ++b)
        f->bin_count += bins_of(f, &grid->blocks[b]);
    f->blocks = calloc((size_t)f->block_count + 1, sizeof *f->blocks);
    f->bins = calloc((size_t)f->bin_count + 1, sizeof *f->bins);
    if (f->blocks == NULL || f->bins == NULL) {
        forecast_free(f);
        return error_set(err, ERROR_MEMORY, "out of memory for the forecast of %lld blocks",
                         (long long)grid->block_count);
    }
    for (int64_t b = 0; b < grid->block_count; ++b)
        f->blocks[b + 1].first_bin = f->blocks[b].first_bin + bins_of(f, &grid->blocks[b]);
    *ret = f;
    return 0;
}

void forecast_free(struct forecast *f)
{
    if (f == NULL)
        return;
    free(f->blocks);
    free(f->bins);
    free(f);
}

int64_t forecast_bin(const struct forecast *f, const struct grid *grid, int64_t group)
{
    const int64_t b = grid_block_of(grid, group);
    const struct grid_block *block = &grid->blocks[b];
    const int64_t within = (group - block->first_group) % block->family_groups;
    return f->blocks[b].first_bin +
           (int64_t)((double)within / (double)block->family_groups * (double)bins_of(f, block));
}

void forecast_expect(struct forecast *f, int64_t bin, double cost)
{
    f->bins[bin].cost += cost;
    f->bins[bin].group_cost = fmax(f->bins[bin].group_cost, cost);
    f->cost += cost;
}

static void add(struct forecast_sample *to, const struct forecast_sample *sample)
{
    to->progress += sample->progress;
    to->seconds += sample->seconds;
    to->ended += sample->ended;
    to->ended_seconds += sample->ended_seconds;
    to->skipped += sample->skipped;
}

static struct block *block_of(struct forecast *f, int64_t bin)
{
    int64_t low = 0, high = f->block_count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (f->blocks[middle].first_bin <= bin)
            low = middle;
        else
            high = middle;
    }
    return &f->blocks[low];
}

void forecast_add(struct forecast *f, int64_t bin, const struct forecast_sample *sample)
{
    add(&f->bins[bin].sum, sample);
    add(&block_of(f, bin)->sum, sample);
    add(&f->sum, sample);
    f->bins[bin].cost -= sample->skipped;
    f->cost -= sample->skipped;
}

double forecast_behind(const struct forecast *f)
{
    return f->sum.progress;
}

double forecast_cost(const struct forecast *f)
{
    return f->cost;
}

/* Seconds a predicted second, of what is behind. Not of groups that ended alone: those in progress are the slower ones. */
static double slowness(const struct forecast_sample *sum, double otherwise)
{
    return sum->progress > 0 && sum->seconds > 0 ? sum->seconds / sum->progress : otherwise;
}

/* Is so much behind that its speed says something? Runs that diverge do so at once, and first steps are slow. */
static bool is_known(const struct bin *bin)
{
    static const double ENOUGH = 0.3; /* of a group */
    return bin->sum.ended > 0 || bin->sum.progress > ENOUGH * bin->group_cost;
}

/* Seconds that a block takes in all. Between bins of which something is known, in proportion. */
static double block_time(const struct forecast *f, const struct block *block, double usual)
{
    const struct bin *bins = f->bins + block[0].first_bin;
    const int64_t count = block[1].first_bin - block[0].first_bin;
    const double otherwise = slowness(&block->sum, usual);
    double time = 0;
    /* The known bins around i: before or at it, or -1, and behind it, or count. */
    for (int64_t i = 0, before = -1, behind = 0; i < count; ++i) {
        if (is_known(&bins[i]))
            before = i;
        while (behind <= i || (behind < count && !is_known(&bins[behind])))
            ++behind;
        double rate = otherwise;
        if (before >= 0 && behind < count)
            rate = ((double)(behind - i) * slowness(&bins[before].sum, usual) +
                    (double)(i - before) * slowness(&bins[behind].sum, usual)) /
                   (double)(behind - before);
        else if (before >= 0 || behind < count)
            rate = slowness(&bins[before >= 0 ? before : behind].sum, usual);
        time += rate * bins[i].cost;
    }
    return time;
}

double forecast_left(const struct forecast *f)
{
    const double usual = slowness(&f->sum, 1);
    double left = 0;
    for (int64_t b = 0; b < f->block_count; ++b)
        left += fmax(0, block_time(f, &f->blocks[b], usual) - f->blocks[b].sum.seconds);
    return left;
}
