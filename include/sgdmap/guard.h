/* guard: a look at something that may crash the one who looks, in a child process first. */
#ifndef SGDMAP_GUARD_H
#define SGDMAP_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/error.h"

struct guard_limits {
    int64_t memory;   /* bytes more than the process has already; not counted under AddressSanitizer */
    int cpu_seconds;  /* of the child */
    int wall_seconds; /* until it is given up */
};

/* Local. Calls work(context, err) in a child process and returns what it returned, with its message; whatever else it
 * changes is lost with the child. The child's output goes nowhere, it leaves without exit handlers, dumps no core, and the
 * signals that end a job gently are the parent's affair. If it does not return, because it crashes or because a limit is
 * reached, *died is true and err says of what: "Segmentation fault". ERROR_MEMORY if there can be no child. */
WARN_UNUSED int guard_call(const struct guard_limits *limits, int (*work)(void *context, struct error *err),
                           void *context, bool *died, struct error *err);

#endif
