#include "sgdmap/comm.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One message carries at most this much: MPI counts in int, and no transport likes larger ones. */
enum { PIECE_MAX = 1 << 30 };

static int mpi_error(struct error *err, const char *call, int status)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(status, text, &length);
    return error_set(err, ERROR_INTERNAL, "%s: %s", call, text);
}

int comm_agree(MPI_Comm comm, struct error *err, int code)
{
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);

    int mine = code == ERROR_NONE ? size : rank;
    int lowest = size;
    int status = MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, comm);
    if (status != MPI_SUCCESS)
        return mpi_error(err, "MPI_Allreduce", status);
    if (lowest == size)
        return ERROR_NONE;

    struct error common = {0};
    if (rank == lowest) {
        if (err != NULL)
            common = *err;
        common.code = (enum error_code)code;
    }
    status = MPI_Bcast(&common, (int)sizeof common, MPI_BYTE, lowest, comm);
    if (status != MPI_SUCCESS)
        return mpi_error(err, "MPI_Bcast", status);
    if (err != NULL)
        *err = common;
    return (int)common.code;
}

int comm_broadcast_text(MPI_Comm comm, char **text, size_t *length, struct error *err)
{
    int rank;
    MPI_Comm_rank(comm, &rank);

    uint64_t size = rank == 0 ? *length : 0;
    int status = MPI_Bcast(&size, 1, MPI_UINT64_T, 0, comm);
    if (status != MPI_SUCCESS)
        return mpi_error(err, "MPI_Bcast", status);

    char *copy = rank == 0 ? *text : malloc(size + 1);
    int code = ERROR_NONE;
    if (copy == NULL && rank != 0)
        code = error_set(err, ERROR_MEMORY, "no memory for a text of %llu bytes", (unsigned long long)size);
    code = comm_agree(comm, err, code);

    for (uint64_t done = 0; code == ERROR_NONE && done < size;) {
        uint64_t piece = size - done < PIECE_MAX ? size - done : PIECE_MAX;
        status = MPI_Bcast(copy + done, (int)piece, MPI_BYTE, 0, comm);
        if (status != MPI_SUCCESS)
            code = mpi_error(err, "MPI_Bcast", status);
        done += piece;
    }
    if (rank == 0)
        return code;
    if (code != ERROR_NONE || copy == NULL) {
        free(copy);
        return code;
    }
    copy[size] = '\0';
    *text = copy;
    *length = (size_t)size;
    return ERROR_NONE;
}
