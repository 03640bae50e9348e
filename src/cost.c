#include "sgdmap/cost.h"

#include <math.h>

#include "sgdmap/kernels.h"
#include "sgdmap/samples.h"

/* Measured by tests/bench/compare. */
static const double LANES_RATE = 127e9;  /* flop/s of large fused steps */
static const double LANES_HALF_D = 3.0;  /* the dimension at which they reach half of it */
static const double LANES_PASS = 0.1e-9; /* s an entry of A, whatever the batch: its way through the caches */
static const double BLIS_RATE = 115e9;   /* flop/s of large products */
static const double BLIS_HALF_D = 30.0;  /* the dimension at which they reach half of it */
static const double BLIS_HALF_BATCH = 16.0;     /* the batch size at which they do */
static const double GATE_TIME = 0.25e-9;        /* s an element of Z: ReLU, its mask, the residual */
static const double BLIS_OVERHEAD = 0.5e-6;     /* s a step */
static const double SHARED_RATE = 85e9;         /* flop/s of a teacher's output */
static const double GAUSSIAN_TIME = 1.9e-9;     /* s a normal */
static const double RECORD_RATE = 127e9;        /* flop/s of a record's products, 10 d^3 flop */
static const double RECORD_PAIR_TIME = 18e-9;   /* s a pair of neurons: arc tangents, and the spectral norm */
static const double RECORD_OVERHEAD = 1.5e-6;   /* s a record */
static const double POPULATION_SHARE = 0.6;     /* of a record: the gradient alone */
static const double GROUP_OVERHEAD = 100e-6;    /* s a group: what precedes its first step */
static const int64_t LIBRARY_MEMORY = 64 << 20; /* bytes: BLIS's packing buffers, MPI, HDF5 */

/* The most that is in lanes: beyond, BLIS's blocking for the caches wins. And the fewest: lanes that stay empty are
 * computed too, which only at small dimensions is still faster than BLIS. */
enum { LANES_DIMENSION_MAX = 256, LANES_RUNS_MIN = 4, LANES_ALWAYS_DIMENSION = 24 };

enum { WIDTH_MAX = 256 };

bool cost_in_lanes(int64_t dimension, int64_t family_runs)
{
    return dimension <= LANES_ALWAYS_DIMENSION ||
           (dimension <= LANES_DIMENSION_MAX && family_runs >= LANES_RUNS_MIN);
}

int64_t cost_unit(bool in_lanes)
{
    return in_lanes ? KERNELS_LANES : 1;
}

static int64_t whole_units(int64_t runs, bool in_lanes)
{
    const int64_t unit = cost_unit(in_lanes);
    return (runs + unit - 1) / unit * unit;
}

/* Seconds of a look at a student: loss, gradient, and the weights' spectral norm. */
static double landscape_time(double d)
{
    return 10 * d * d * d / RECORD_RATE + d * d * RECORD_PAIR_TIME + RECORD_OVERHEAD;
}

/* Seconds a sample of what a group's runs share. */
static double shared_time(int64_t dimension, int64_t teachers)
{
    const double d = (double)dimension;
    return d * GAUSSIAN_TIME + (double)teachers * 2 * d * d / SHARED_RATE;
}

int64_t cost_width(const struct cost_shape *shape, double share)
{
    if (shape->population) /* nothing is shared */
        return 1;
    struct cost_shape usual = *shape;
    usual.batch_size = 64;
    const double own = cost_step(&usual) / 64;
    const double width = ceil(shared_time(shape->dimension, 1) / (share * own));
    return width > WIDTH_MAX ? WIDTH_MAX : whole_units((int64_t)width, shape->in_lanes);
}

double cost_step(const struct cost_shape *shape)
{
    const double d = (double)shape->dimension, b = (double)shape->batch_size, flop = 4 * b * d * d;
    if (shape->population)
        return POPULATION_SHARE * landscape_time(d);
    if (shape->in_lanes)
        return flop / LANES_RATE * (1 + LANES_HALF_D / d) + d * d * LANES_PASS;
    return flop / BLIS_RATE * (1 + BLIS_HALF_D / d) * (1 + BLIS_HALF_BATCH / b) + b * d * GATE_TIME +
           BLIS_OVERHEAD;
}

double cost_record(const struct cost_shape *shape)
{
    const double d = (double)shape->dimension;
    return landscape_time(d) + (double)shape->test * (d * GATE_TIME + 2 * d * d / SHARED_RATE);
}

double cost_group(const struct cost_shape *shape, int64_t runs, int64_t teachers)
{
    const double own = cost_step(shape);
    const double shared = shared_time(shape->dimension, teachers) * (double)shape->batch_size;
    const double sets = (double)(shape->data + shape->test) * (double)shape->dimension * GAUSSIAN_TIME;
    return GROUP_OVERHEAD + sets +
           (double)shape->steps * (shared + own * (double)whole_units(runs, shape->in_lanes)) +
           (double)runs * (double)shape->records * cost_record(shape);
}

/* Doubles of the sets of samples that are kept, the order of the training set's, and their labels' noise. */
static int64_t sets_memory(const struct cost_shape *shape)
{
    const int64_t d = shape->dimension, data = shape->data, test = shape->test;
    return (samples_are_kept(d, data) ? data * d : 0) + data + (data + 1) / 2 +
           (samples_are_kept(d, test) ? test * d : 0) + (test > 0 ? SAMPLES_PIECE * (2 * d + 2) : 0);
}

/* The arrays of train.c, samples.c and landscape.c, and the rows of weights on their way to the file. */
int64_t cost_memory(const struct cost_shape *shape, int64_t runs, int64_t teachers)
{
    const int64_t d = shape->dimension, matrix = d * (d + 8), lanes = cost_unit(shape->in_lanes);
    const int64_t weights =
        (whole_units(runs, shape->in_lanes) + 3 * runs) * matrix; /* in training, at the end, and two
                                                                                         to be written */
    const int64_t landscapes = teachers * (13 * matrix + shape->test);
    const int64_t samples = shape->in_lanes ? KERNELS_STEP_SAMPLES : shape->batch_size + 8;
    const int64_t workspace = samples * (d + 1) * lanes + matrix * lanes;
    const int64_t inputs =
        (2 * d + 32) * (shape->batch_size + 16) + INT64_C(64) * 1024 + shape->batch_size * lanes;
    const int64_t spectral = 3 * matrix + 164 * (d + 8);
    const int64_t records = runs * shape->records * 10; /* the fields, and two for the phases */
    const int64_t reals = weights + landscapes + workspace + inputs + spectral + 4 * matrix + records;
    return (reals + sets_memory(shape)) * (int64_t)sizeof(double) + LIBRARY_MEMORY;
}
