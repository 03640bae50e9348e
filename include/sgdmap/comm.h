/* comm: the only file that calls MPI for agreement. */
#ifndef SGDMAP_COMM_H
#define SGDMAP_COMM_H

#include <mpi.h>
#include <stddef.h>

#include "sgdmap/error.h"

/* Collective. Every rank brings its own code (ERROR_NONE if all is well) and message; all return the code of the
 * lowest rank that failed, with its message. The one way for ranks to leave a collective sequence: together. */
WARN_UNUSED int comm_agree(MPI_Comm comm, struct error *err, int code);

/* Collective. Broadcasts a byte string from rank 0: `text` and `length` are inputs there and, allocated here (with a
 * NUL behind it), outputs elsewhere. */
WARN_UNUSED int comm_broadcast_text(MPI_Comm comm, char **text, size_t *length, struct error *err);

#endif
