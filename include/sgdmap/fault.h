/* fault: the places at which the test build can be made to fail or to die, as on a bad disk or by kill -9. In the program
 * itself they are nothing. */
#ifndef SGDMAP_FAULT_H
#define SGDMAP_FAULT_H

#include "sgdmap/error.h"

/* Local. In the test build: ERROR_IO at the place that SGDMAP_FAULT in the environment asks for, "fail 17" the 17th that a
 * process comes by, "full 17" from that one on, its death, "kill 17", or a signal, "TERM 17" (INT, USR1). With SGDMAP_FAULT_PLACE only places of that name
 * count (how many checkpoints there are depends on the clock), with SGDMAP_FAULT_RANK only those of that rank; with
 * SGDMAP_FAULT_TRACE every place is appended to that file. */
#ifdef SGDMAP_FAULTS
WARN_UNUSED int fault_at(const char *place, struct error *err);

/* Local. Ends the process if any of `what` are left open. */
void fault_left(const char *what, int64_t count);
#else
static inline void fault_left(const char *what, int64_t count)
{
    (void)what;
    (void)count;
}

static inline int fault_at(const char *place, struct error *err)
{
    (void)place;
    (void)err;
    return 0;
}
#endif

#endif
