/* schedule: which groups a rank is given next. Used by the master of a sweep and by its simulation (`sgdmap plan`). */
#ifndef SGDMAP_SCHEDULE_H
#define SGDMAP_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/grid.h"

/* Neighbours in the order of grid_group_in_order(), of which those of other shards are left out. */
struct portion {
    int64_t first, count;
    double cost; /* predicted, s */
};

struct schedule {
    const struct grid *grid;
    int64_t ranks;
    const uint8_t *group_done; /* [group_count], NULL: none is; borrowed */
    int64_t next;              /* place in the order of the first group not handed out */
    double left;               /* predicted seconds not handed out */
};

/* With group_done, `left` is what the caller knows to be left. */
void schedule_init(const struct grid *grid, int64_t ranks, const uint8_t *group_done, double left,
                   struct schedule *ret);

/* The next groups, those that are done left out; count 0: there are none. Several cheap ones at a time, so that messages do
 * not cost more than they, the more the more ranks ask; toward the end fewer, so that all ranks end together. */
void schedule_next(struct schedule *schedule, struct portion *ret);

/* The next portion is asked for when this much of the present one is left, and progress is reported so often, s. */
extern const double SCHEDULE_ASK_AHEAD;
double schedule_report_interval(int64_t ranks);

#endif
