/* simulate: a sweep's schedule on any number of ranks, played through without training. */
#ifndef SGDMAP_SIMULATE_H
#define SGDMAP_SIMULATE_H

#include <stdint.h>

#include "sgdmap/error.h"
#include "sgdmap/grid.h"

/* What the simulation takes for granted, s. Measured: see simulate.c. */
struct simulate_costs {
    double request; /* rank 0 takes a report and answers it */
    double message; /* on its way there and back */
    double slice;   /* rank 0 trains so long before it looks at its messages */
    double write;   /* a run's rows */
    double start;   /* from the command to the first group */
};

extern const struct simulate_costs simulate_defaults;

struct simulate_result {
    double wall;       /* s to the end of the last rank */
    double efficiency; /* training / (ranks * wall) */
    double master;     /* share of its time that rank 0 spends on messages */
    int64_t portions;  /* requests that were answered with groups */
};

/* factors [block_count]: seconds a predicted second, of each block. Errors: ERROR_MEMORY. */
WARN_UNUSED int simulate_sweep(const struct grid *grid, const double *factors, int64_t ranks,
                               const struct simulate_costs *costs, struct simulate_result *ret,
                               struct error *err);

#endif
