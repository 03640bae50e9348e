/* grid: from a config to runs, run groups and their cost.
 *
 * Runs are numbered along a fixed nesting, the last axis fastest:
 *     dimension, batch_size, gradient, data, input, replicate | teacher, teacher_norm, link, noise, schedule,
 *     step_size, init_scale
 * What stands before the bar is common to a family; a family is cut into groups of runs that are neighbours,
 * sized by the cost model. Nothing is stored a run: 10^8 runs cost no memory. */
#ifndef SGDMAP_GRID_H
#define SGDMAP_GRID_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/cost.h"
#include "sgdmap/error.h"

/* One run's setting. */
struct setting {
    int64_t run;
    int64_t dimension;
    int64_t batch_size;
    enum gradient_kind gradient;
    int64_t data;
    enum input_kind input;
    int64_t replicate;
    enum teacher_kind teacher;
    double teacher_norm;
    enum link_kind link;
    double noise;
    enum schedule_kind schedule;
    double step_size;
    double init_scale;
};

/* Runs that are trained together: they share X, so all that stands before the bar. */
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
    int64_t block_count; /* of (dimension, batch_size, gradient, data), in run order */
    struct grid_block {
        struct cost_shape shape;
        int64_t width; /* runs a group at the most */
        int64_t first_run;
        int64_t first_group;
        int64_t family_groups; /* groups a family */
        int64_t family_count;  /* inputs x replicates */
        int64_t stride;  /* from group to group of a family, in the order in which they are handed out */
        int64_t inverse; /* stride * inverse = 1 modulo family_groups */
        int64_t place;   /* of its first stretch; the second is block_count stretches later */
        double run_cost; /* predicted seconds a run, in the mean */
    } * blocks;          /* [block_count] */
    struct grid_stretch {
        int64_t block;
        int64_t first;          /* how many groups are handed out before it */
        int64_t from;           /* how many of the block's groups come before it */
    } * stretches;              /* [2 * block_count], in the order in which groups are handed out */
    int64_t shard, shard_count; /* the part of the groups that is trained, of how many; 0 of 1 is all */
    int64_t shard_runs;         /* in it */
    double shard_cost;
};

/* Errors: ERROR_ARGUMENT if the number of runs exceeds 2^53, naming the counts of the axes, or if there are more than
 * 10^6 blocks; ERROR_MEMORY. */
WARN_UNUSED int grid_expand(const struct config *config, struct grid *ret, struct error *err);
void grid_done(struct grid *grid);

/* A setting's value on an axis, as the axis has it. */
double setting_value(const struct setting *setting, enum axis_id axis);

/* 0 <= run < run_count; 0 <= index < group_count. */
void grid_setting(const struct grid *grid, int64_t run, struct setting *ret);
void grid_group(const struct grid *grid, int64_t index, struct group *ret);

/* The group that is handed out as the `place`-th: first a few of every block, which show how fast it is and how many runs
 * end early, then block after block, the one with the most expensive groups first. Within a block far apart, so that any
 * few of them are like the whole. 0 <= place < group_count. */
int64_t grid_group_in_order(const struct grid *grid, int64_t place);

/* The place of a group in that order. */
int64_t grid_place_of(const struct grid *grid, int64_t group);

/* The block that a group belongs to. */
int64_t grid_block_of(const struct grid *grid, int64_t group);

/* The group that a run belongs to. */
int64_t grid_group_of(const struct grid *grid, int64_t run);

/* A shard is a part of the groups, for a job and a file of its own, and a function of the config and the two numbers alone: in the
 * order in which they are handed out, so by cost, groups are dealt like cards, one to each shard a round, each round from
 * another shard on. So shards have as many groups of every kind, to one, whatever the grid's axes repeat. */
enum { GRID_SHARDS_MAX = 1000000 };

/* "I/N", 0 <= I < N <= GRID_SHARDS_MAX. False, and nothing changed, if the text is something else. */
WARN_UNUSED bool grid_parse_shard(const char *text, int64_t *shard, int64_t *count);

/* What is trained of the grid from now on. A shard may be empty if there are more shards than groups. */
void grid_take_shard(struct grid *grid, int64_t shard, int64_t count);

/* Is it in the grid's shard? By the group's place in the order, its index, or a run. */
bool grid_has_place(const struct grid *grid, int64_t place);
bool grid_has_group(const struct grid *grid, int64_t group);
bool grid_has_run(const struct grid *grid, int64_t run);

/* The first neighbouring runs of the shard in [run, end), without a shard all of them. False if there are none. */
bool grid_next_runs(const struct grid *grid, int64_t run, int64_t end, int64_t *ret_first, int64_t *ret_end);

double grid_total_cost(const struct grid *grid);

/* The most that a rank needs for any group of the grid. */
int64_t grid_memory(const struct grid *grid);

#endif
