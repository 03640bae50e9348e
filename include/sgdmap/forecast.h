/* forecast: how long the rest of a sweep takes, learned from what has been trained so far.
 *
 * The cost model does not know how many runs of a group end early, and it may be off by a factor at a dimension. But groups of
 * one block whose settings are close to each other take about as long, and replicates even more so: a group is taken for like
 * the nearest ones of its block that have ended or are well under way. */
#ifndef SGDMAP_FORECAST_H
#define SGDMAP_FORECAST_H

#include <stdint.h>

#include "sgdmap/error.h"
#include "sgdmap/grid.h"

/* What has come about since the last time. Costs are predicted seconds. */
struct forecast_sample {
    double progress;      /* cost that is behind, trained or saved */
    double seconds;       /* that it took */
    double ended;         /* cost of the groups that ended */
    double ended_seconds; /* that they took, from begin to end */
    double skipped;       /* cost that was expected and turns out not to be to do */
};

struct forecast; /* opaque */

/* Errors: ERROR_MEMORY. `grid` is borrowed. */
WARN_UNUSED int forecast_new(const struct grid *grid, struct forecast **ret, struct error *err);
void forecast_free(struct forecast *forecast);

/* Groups whose settings are close to each other share a bin. */
int64_t forecast_bin(const struct forecast *forecast, const struct grid *grid, int64_t group);

/* `cost` is to do in this bin (or, negative, is not). */
void forecast_expect(struct forecast *forecast, int64_t bin, double cost);

void forecast_add(struct forecast *forecast, int64_t bin, const struct forecast_sample *sample);

/* Cost that is behind, and all that is or was to do; seconds of one rank's time that are left. */
double forecast_behind(const struct forecast *forecast);
double forecast_cost(const struct forecast *forecast);
double forecast_left(const struct forecast *forecast);

#endif
