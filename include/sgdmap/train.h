/* train: the fused step and the loop over steps, for one run group.
 *
 * The students of a group stand side by side in panels of panel_width(d, B) students, the columns of one
 * matrix. A step is, with X drawn and the teachers' outputs computed once for all: Z = X A, the gate M = -(2
 * eta/B) r 1[Z > 0], and A <- A + X'M, panel by panel, so that Z stays in the cache.
 *
 * What a run computes depends on its setting and on its slot, the place in its group, never on its
 * neighbours. Every product is made with the same shape whatever stands in the other slots, and a column of a
 * product depends on no other column. Runs that end leave at once: an empty panel is skipped, and where all
 * columns of a product of this shape are found to be computed alike (trainer_new tries), the students behind
 * move up, so that no slot is computed empty. */
#ifndef SGDMAP_TRAIN_H
#define SGDMAP_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/kernels.h"
#include "sgdmap/record.h"

/* One run of the group. */
struct train_run {
    int64_t slot; /* its place in the whole group, whichever of the group's runs are trained; distinct */
    double step_size;
    double init_scale;
    double teacher_norm;
    enum link_kind link;
};

struct train_group {
    int64_t dimension;
    int64_t batch_size;
    enum input_kind input;
    uint64_t seed;
    int64_t replicate;
    int64_t steps;
    double tolerance;
    int64_t record_count;
    const int64_t *record_steps; /* [record_count] */
    uint32_t fields;             /* bit f: enum record_field f is wanted */
    int64_t run_count;
    const struct train_run *runs; /* [run_count] */
};

struct trainer; /* opaque */

/* `group` and what it points to are copied. Errors: ERROR_MEMORY, and nothing else. */
WARN_UNUSED int trainer_new(const struct kernels *kernels, const struct train_group *group,
                            struct trainer **ret, struct error *err);
void trainer_free(struct trainer *trainer);

/* Trains until all runs have ended, or for about `seconds`, at least one step. Returns true when all have.
 * The bits do not depend on how the work is cut into calls. */
bool trainer_advance(struct trainer *trainer, double seconds);

/* How much of the work is behind, in [0, 1]; a run that ended early counts whole. */
double trainer_progress(const struct trainer *trainer);

/* In the order of `group->runs`. NULL for a field that is not wanted. */
const double *trainer_field(const struct trainer *trainer,
                            enum record_field field);                    /* [run_count][record_count] */
const struct run_result *trainer_results(const struct trainer *trainer); /* [run_count] */

/* W or W* of a run as rows: ret [d][d], row i column j, W_ij the weight from input i to neuron j. */
void trainer_student(const struct trainer *trainer, int64_t run, double *ret);
void trainer_teacher(const struct trainer *trainer, int64_t run, double *ret);

/* For tests: whether students that stay move into the slots of those that left; true only if trainer_new
 * found that it changes no bit. */
bool trainer_compacts(const struct trainer *trainer);

#endif
