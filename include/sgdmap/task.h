/* task: a run group of the grid, or some of its runs, in training. */
#ifndef SGDMAP_TASK_H
#define SGDMAP_TASK_H

#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/grid.h"
#include "sgdmap/kernels.h"
#include "sgdmap/train.h"

struct task {
    struct group group;
    int64_t run_count;       /* runs that are trained, at most group.run_count */
    int64_t *runs;           /* [run_count] their ids, ascending; the order of the trainer's results */
    struct trainer *trainer; /* NULL if it could not be made */
};

/* `wanted` [group.run_count], nonzero where a run is to be trained; NULL: all. A run's slot is its place in
 * the whole group, so that its bits do not depend on which others are wanted. Errors: ERROR_MEMORY; then
 * `ret` still names the runs if it could, and is done as usual. */
WARN_UNUSED int task_init(const struct kernels *kernels, const struct config *config, const struct grid *grid,
                          int64_t group, const uint8_t *wanted, struct task *ret, struct error *err);
void task_done(struct task *task);

#endif
