/* grid: from a config to runs, run groups and their cost.
 *
 * Runs are numbered along a fixed nesting, the last axis fastest:
 *     dimension, batch_size, input, replicate | teacher_norm, link, step_size, init_scale
 * What stands before the bar is common to a family; a family is cut into groups of runs that are neighbours,
 * sized by the cost model. Nothing is stored a run: 10^8 runs cost no memory. */
#ifndef SGDMAP_GRID_H
#define SGDMAP_GRID_H

#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/cost.h"
#include "sgdmap/error.h"

/* One run's setting. */
struct setting {
    int64_t run;
    int64_t dimension;
    int64_t batch_size;
    enum input_kind input;
    int64_t replicate;
    double teacher_norm;
    enum link_kind link;
    double step_size;
    double init_scale;
};

/* Runs that are trained together: they share X, so dimension, batch_size, input and replicate. */
struct group {
    int64_t index;
    int64_t first_run;
    int64_t run_count;
    double cost; /* predicted seconds on the reference core if no run ends early */
};

struct grid {
    const struct config *config; /* borrowed; outlives the grid */
    int64_t run_count;
    int64_t family_runs; /* runs a family */
    int64_t group_count;
    int64_t block_count; /* (dimension, batch_size) pairs, in run order */
    struct grid_block {
        struct cost_shape shape;
        int64_t width; /* runs a group at the most */
        int64_t first_run;
        int64_t first_group;
        int64_t family_groups; /* groups a family */
        int64_t family_count;  /* inputs x replicates */
        int64_t stride;  /* from group to group of a family, in the order in which they are handed out */
        double run_cost; /* predicted seconds a run, in the mean */
    } * blocks;          /* [block_count] */
    struct grid_stretch {
        int64_t block;
        int64_t first; /* how many groups are handed out before it */
        int64_t from;  /* how many of the block's groups come before it */
    } * stretches;     /* [2 * block_count], in the order in which groups are handed out */
};

/* Errors: ERROR_ARGUMENT if the number of runs exceeds 2^53, naming the counts of the axes, or if there are more than
 * 10^6 blocks; ERROR_MEMORY. */
WARN_UNUSED int grid_expand(const struct config *config, struct grid *ret, struct error *err);
void grid_done(struct grid *grid);

/* 0 <= run < run_count; 0 <= index < group_count. */
void grid_setting(const struct grid *grid, int64_t run, struct setting *ret);
void grid_group(const struct grid *grid, int64_t index, struct group *ret);

/* The group that is handed out as the `place`-th: first a few of every block, which show how fast it is and how many runs
 * end early, then block after block, the one with the most expensive groups first. Within a block far apart, so that any
 * few of them are like the whole. 0 <= place < group_count. */
int64_t grid_group_in_order(const struct grid *grid, int64_t place);

/* The block that a group belongs to. */
int64_t grid_block_of(const struct grid *grid, int64_t group);

/* The group that a run belongs to. */
int64_t grid_group_of(const struct grid *grid, int64_t run);

double grid_total_cost(const struct grid *grid);

/* The most that a rank needs for any group of the grid. */
int64_t grid_memory(const struct grid *grid);

#endif
