/* train: the loop over steps, for one run group.
 *
 * The students of a group share the inputs X, and those of one teacher its outputs. They stand in blocks: side by side in
 * the lanes of a vector (in_lanes), where a step is one fused kernel (kernels.h), or one to a block, where it is two
 * products of BLIS with the gate between: Z = X A, M = -(2 eta/B) r 1[Z > 0], A <- A + X'M. Inputs are drawn for a tile
 * of steps at once, and each block takes the tile's steps before the next block does.
 *
 * With the population's gradient nothing is drawn: students stand one to a block, and a step is the landscape's closed form.
 *
 * What a run computes depends on its setting and on in_lanes, never on which other runs are in the group, on its place
 * among them or on how the work is cut into calls. Runs that end leave at once, and the last ones take their places. */
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
    double step_size;
    double init_scale;
    double teacher_norm;
    enum link_kind link;
    enum teacher_kind teacher;
    double noise; /* of its labels */
    enum schedule_kind schedule;
};

struct train_group {
    int64_t dimension;
    int64_t batch_size; /* 0 with the population's gradient */
    enum gradient_kind gradient;
    int64_t data; /* samples of the training set; 0: fresh ones */
    enum input_kind input;
    bool in_lanes; /* cost_in_lanes() says which is faster; not with the population's gradient */
    uint64_t seed;
    int64_t replicate;
    int64_t steps;
    double tolerance;
    int64_t test_samples; /* for RECORD_TEST_LOSS */
    int64_t teacher_rank;
    double decay; /* steps, of SCHEDULE_INVERSE_TIME */
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

/* Trains until all runs have ended, or for about `seconds`, at least a step or so of one block. Returns true when all
 * have. The bits do not depend on how the work is cut into calls. */
bool trainer_advance(struct trainer *trainer, double seconds);

/* Shares of the group's steps and records, weighed by their cost, which add up to 1 in the end. */
struct trainer_progress {
    double done;
    double saved; /* by runs that ended early */
};
struct trainer_progress trainer_progress(const struct trainer *trainer);

/* The whole state between two calls, as bytes of this machine: ret [trainer_saved_size(trainer)], aligned to
 * 8 bytes. */
int64_t trainer_saved_size(const struct trainer *trainer);
void trainer_save(const struct trainer *trainer, void *ret);

/* More is never saved of `run_count` runs of such a group. */
int64_t trainer_saved_limit(const struct trainer *trainer, int64_t run_count);

/* A trainer that is new takes up what another one was saved at: run r of its group is run from[r] of that one's,
 * with the same setting, of a group that is alike in all else. The other's further runs are left out. The bits to come are those
 * that it would have had, at any width of vector. False, and all as it was, if `state` cannot be of such a trainer. */
bool trainer_restore(struct trainer *trainer, const void *state, int64_t size, const int64_t *from);

/* Where the time of trainer_advance() went, in seconds. */
struct trainer_times {
    double all;
    double inputs;      /* drawing them, and the teachers' outputs */
    double diagnostics; /* records, and the losses of runs that ended */
};
struct trainer_times trainer_times(const struct trainer *trainer);

/* In the order of `group->runs`. NULL for a field that is not wanted. */
const double *trainer_field(const struct trainer *trainer,
                            enum record_field field);                    /* [run_count][record_count] */
const struct run_result *trainer_results(const struct trainer *trainer); /* [run_count] */

/* W or W* of a run as rows: ret [d][d], row i column j, W_ij the weight from input i to neuron j. */
void trainer_student(const struct trainer *trainer, int64_t run, double *ret);
void trainer_teacher(const struct trainer *trainer, int64_t run, double *ret);

#endif
