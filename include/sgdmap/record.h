/* record: what is recorded of a run. One table of fields that the store, the analysis and the tests follow. */
#ifndef SGDMAP_RECORD_H
#define SGDMAP_RECORD_H

#include <stdint.h>

#include "sgdmap/error.h"

/* The fields of a trajectory, in the file's order. */
enum record_field {
    RECORD_LOSS,
    RECORD_BATCH_LOSS,
    RECORD_ERROR,
    RECORD_POTENTIAL,
    RECORD_POTENTIAL_NORM,
    RECORD_ALIGNMENT,
    RECORD_GRADIENT_NORM,
    RECORD_WEIGHT_NORM,
    RECORD_TEST_LOSS, /* where there is a test set */
    RECORD_FIELD_COUNT
};

struct record_field_info {
    const char *name;  /* the dataset's name, and the word in output.fields */
    const char *units; /* UDUNITS; "1" where there is none */
    const char *long_name;
};

const struct record_field_info *record_field_info(enum record_field field);

/* The outcome of a run; the values are the file's flag_values. */
enum outcome {
    OUTCOME_PENDING,
    OUTCOME_RUNNING,
    OUTCOME_CONVERGED,
    OUTCOME_DIVERGED,
    OUTCOME_STALLED,
    OUTCOME_UNFINISHED,
    OUTCOME_FAILED,
    OUTCOME_COUNT
};
const char *outcome_name(enum outcome outcome);

/* Why a run failed; flag values of the dataset `message`. */
enum failure { FAILURE_NONE, FAILURE_OUT_OF_MEMORY, FAILURE_COUNT };
const char *failure_name(enum failure failure);

/* What a run ended with. Steps are -1 where the thing did not happen. */
struct run_result {
    enum outcome outcome;
    enum failure failure;
    int64_t steps_done;
    int64_t converged_step;
    int64_t phase2_step;
    double final_error;
    double final_loss;
    double wall_time; /* s, this run's share of its group's time */
};

/* The recorded steps: 0, then log-spaced, all distinct and increasing, the last one `steps`.
 * ret [count]; 2 <= count <= steps + 1. */
void record_steps(int64_t steps, int64_t count, int64_t *ret);

/* The first record of phase II: the first from which on alignment > 0 and
 * |potential_norm| <= max(0.1 |potential_norm[0]|, 0.01 sqrt(dimension)) at every later record.
 * Returns its index, or -1. `count` records that the run reached; a NaN alignment is not > 0. */
int64_t record_phase2(const double *alignment, const double *potential_norm, int64_t count,
                      int64_t dimension);

#endif
