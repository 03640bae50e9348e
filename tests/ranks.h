/* ranks: tests that run on every rank. A rank that jumped out of a test would leave the others in their next
 * collective, so a check only takes a note; all ranks agree at the end of the test, and rank 0 alone reports.
 * Include after cmocka.h. */
#ifndef SGDMAP_TESTS_RANKS_H
#define SGDMAP_TESTS_RANKS_H

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>

#include "sgdmap/comm.h"

struct ranks {
    int rank;
    int size;
    struct error failure; /* the first check that failed on this rank in this test */
};

static void ranks_note(struct ranks *ranks, bool holds, const char *expression, const char *file, int line,
                       const char *message)
{
    if (!holds && ranks->failure.code == ERROR_NONE)
        error_set(&ranks->failure, ERROR_INTERNAL, "%s:%d: rank %d of %d: %s [%.500s]", file, line,
                  ranks->rank, ranks->size, expression, message);
}

/* Takes a note unless the expression holds; goes on. */
#define CHECK(ranks, expression) ranks_note(ranks, expression, #expression, __FILE__, __LINE__, "")
/* The same for a call, with what its error says. */
#define CHECK_CALL(ranks, expression, err)                                                                   \
    ranks_note(ranks, (expression) == ERROR_NONE, #expression, __FILE__, __LINE__, (err).message)

/* Collective. The end of a test. */
static void ranks_settle(struct ranks *ranks)
{
    int code = comm_agree(MPI_COMM_WORLD, &ranks->failure, (int)ranks->failure.code);
    struct error failure = ranks->failure;
    ranks->failure = (struct error){0};
    if (code == ERROR_NONE)
        return;
    if (ranks->rank == 0)
        fail_msg("%s", failure.message);
    skip();
}

static void ranks_init(int *argc, char ***argv, struct ranks *ret)
{
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &ret->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ret->size);
    if (ret->rank != 0 && freopen("/dev/null", "w", stdout) == NULL)
        MPI_Abort(MPI_COMM_WORLD, 1);
}

/* The exit status: every rank leaves with the number of rank 0's failures, so that mpirun says it. */
static int ranks_finish(int failed)
{
    MPI_Bcast(&failed, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Finalize();
    return failed;
}

#endif
