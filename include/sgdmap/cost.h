/* cost: how long training takes and how much memory, predicted from its shape alone: seconds on one core of the
 * reference machine (an AVX-512 core of 4 GHz). What is trained together, and in which layout, follows from it; so it
 * depends on the config and never on the machine. */
#ifndef SGDMAP_COST_H
#define SGDMAP_COST_H

#include <stdbool.h>
#include <stdint.h>

/* What the runs of a group have in common. */
struct cost_shape {
    int64_t dimension, batch_size;
    int64_t steps, records; /* a run */
    bool in_lanes;          /* students side by side in vector lanes; else one matrix each, for BLIS */
    bool population;        /* the exact gradient instead of a minibatch's */
    int64_t data, test;     /* samples of the training set and of the test set; 0: none */
};

/* The layout that is faster for families of so many runs. */
bool cost_in_lanes(int64_t dimension, int64_t family_runs);

/* Runs that are computed at the cost of one: the lanes of a block. */
int64_t cost_unit(bool in_lanes);

/* Students enough for what they share (the inputs, one teacher's output) to cost each `share` of its own step. */
int64_t cost_width(const struct cost_shape *shape, double share);

/* A group that is trained to its last step; records and checks included, writing not. */
double cost_group(const struct cost_shape *shape, int64_t runs, int64_t teachers);

/* Of it a run's own step, and a record. */
double cost_step(const struct cost_shape *shape);
double cost_record(const struct cost_shape *shape);

/* Bytes that a rank needs for such a group at the most. */
int64_t cost_memory(const struct cost_shape *shape, int64_t runs, int64_t teachers);

#endif
