/* sweep: groups over ranks. Rank 0 is the master: it hands out groups, the most expensive first, to whoever
 * asks, and trains too, between whose slices it answers. A rank asks before it is through with what it has.
 */
#ifndef SGDMAP_SWEEP_H
#define SGDMAP_SWEEP_H

#include <mpi.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/checkpoint.h"
#include "sgdmap/config.h"
#include "sgdmap/error.h"
#include "sgdmap/grid.h"
#include "sgdmap/kernels.h"
#include "sgdmap/record.h"
#include "sgdmap/store.h"

/* How far the sweep is, as rank 0 knows it. */
struct sweep_progress {
    int64_t run_count;
    int64_t
        outcomes[OUTCOME_COUNT]; /* runs by outcome, those of earlier sessions of the same file included */
    int64_t trained;             /* runs that ended in this session */
    int64_t resumed;             /* runs that were taken up from a checkpoint of an earlier one */
    double cost;                 /* predicted seconds of all that this session has to do */
    double cost_done;            /* of that, what is behind */
    double left;                 /* s to the end of the sweep, by what has been learned so far */
    double elapsed;              /* s since the start of the session */
    int ranks;
};

/* Told at most every `interval` seconds, and once at the end. */
struct sweep_observer {
    void (*begin)(void *context, const struct sweep_progress *progress); /* what there is to do */
    void (*progress)(void *context, const struct sweep_progress *progress, bool last);
    void (*failure)(void *context, int64_t run, const char *message); /* a run that could not be computed */
    void (*warning)(void *context, const char *message);              /* on any rank: the sweep goes on */
    double interval;
    void *context;
};

/* What became of a rank's time, s. */
struct sweep_times {
    double all;
    double steps, inputs, diagnostics; /* training */
    double writing, waiting;
};

/* On rank 0. */
struct sweep_summary {
    struct sweep_progress progress;
    struct sweep_times *times; /* [ranks], NULL on other ranks; for the caller to free */
};

/* Collective. Trains all runs of `store` that are not done, failed ones included; with `fresh`, just created,
 * it does not look for any that are, nor for checkpoints. Every config->checkpoint_interval seconds a rank saves the group that
 * it trains and brings what it has written to the disk. `stop`, set by a signal handler on any rank, ends the sweep on all,
 * which save their groups before.
 * Errors, the same on all ranks: ERROR_INTERRUPTED, ERROR_IO, ERROR_MEMORY. `ret` is meaningful on rank 0 and
 * set in every case. */
WARN_UNUSED int sweep_train(const struct kernels *kernels, const struct config *config,
                            const struct grid *grid, struct store *store, bool fresh,
                            const struct checkpoints *checkpoints, MPI_Comm comm,
                            const volatile sig_atomic_t *stop, const struct sweep_observer *observer,
                            struct sweep_summary *ret, struct error *err);

#endif
