/* The fused step for one instruction set, with students side by side in the lanes of a vector: compiled several times,
 * like kernels_isa.c.
 *
 * A block is WIDTH students, A [neuron][component][lane]. Their inputs are common, so that a product is a sum of
 * multiply_add(the same x in all lanes, weights); nothing is packed, nothing is added up across lanes, and what a
 * student computes cannot depend on the others. Every sum runs in one order, over components, neurons or samples from
 * first to last, whatever the tiles' shapes, which are chosen for speed alone: all widths give the same bits.
 *
 * A tile of Z, or of the gradient, is accumulated in registers. With R x C accumulators an iteration loads R + C
 * vectors for R C multiply-adds; two of either go in a cycle, and 32 (or 16) registers are what there is. */
#include "vector.h"

/* Tiles of Z: samples x neurons; of the gradient: components x neurons. Measured at d = 10 to 200: 8 x 3 and 5 x 4
 * give 81 to 92 % of the peak with 32 registers, 4 x 3 about 87 % with 16. */
#if defined __AVX512F__ || defined __aarch64__
enum { SAMPLES = 8, NEURONS = 3, COMPONENTS = 5, GRADIENT_NEURONS = 4 };
#else
enum { SAMPLES = 4, NEURONS = 3, COMPONENTS = 4, GRADIENT_NEURONS = 3 };
#endif
/* The samples that are left over, one or two at a time, want more neurons to have enough sums under way. */
enum { REST_SAMPLES = 2, REST_NEURONS = 6 };
enum { TILE_MAX = 8 };

/* Calls f(rows, columns, ...) with constants, so that the accumulators become registers. rows in 1..8, columns in
 * 1..6. */
#define COLUMNS(f, rows, columns, ...)                                                                       \
    switch (columns) {                                                                                       \
    case 1:                                                                                                  \
        f(rows, 1, __VA_ARGS__);                                                                             \
        break;                                                                                               \
    case 2:                                                                                                  \
        f(rows, 2, __VA_ARGS__);                                                                             \
        break;                                                                                               \
    case 3:                                                                                                  \
        f(rows, 3, __VA_ARGS__);                                                                             \
        break;                                                                                               \
    case 4:                                                                                                  \
        f(rows, 4, __VA_ARGS__);                                                                             \
        break;                                                                                               \
    case 5:                                                                                                  \
        f(rows, 5, __VA_ARGS__);                                                                             \
        break;                                                                                               \
    default:                                                                                                 \
        f(rows, 6, __VA_ARGS__);                                                                             \
    }

/* `count` things in `pieces` pieces that differ by at most one: where piece i begins. */
INLINE int64_t piece_begin(int64_t count, int64_t pieces, int64_t i)
{
    return i * count / pieces;
}

INLINE int64_t pieces_of(int64_t count, int64_t most)
{
    return (count + most - 1) / most;
}

/* -- Z and the networks' outputs ------------------------------------------------------------------- */

/* z[n][j] = <x_n, a_j> for a tile; output[n] grows by the ReLU of its neurons. */
INLINE void forward_tile(const int samples, const int neurons, int64_t d, int64_t stride,
                         const double *inputs, const double *students, double *restrict z,
                         double *restrict output)
{
    vector sum[TILE_MAX][TILE_MAX];
#pragma GCC unroll 8
    for (int n = 0; n < samples; ++n)
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j)
            sum[n][j] = splat(0);
    for (int64_t i = 0; i < d; ++i)
#pragma GCC unroll 8
        for (int n = 0; n < samples; ++n) {
            const vector x = splat(inputs[i * stride + n]);
#pragma GCC unroll 8
            for (int j = 0; j < neurons; ++j)
                sum[n][j] = multiply_add(x, load(students + (j * d + i) * WIDTH), sum[n][j]);
        }
#pragma GCC unroll 8
    for (int n = 0; n < samples; ++n) {
        vector total = load(output + n * WIDTH);
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j) {
            store(z + (n * d + j) * WIDTH, sum[n][j]);
            total += positive(sum[n][j]);
        }
        store(output + n * WIDTH, total);
    }
}

INLINE void forward_rows(const int samples, const int most_neurons, int64_t begin, int64_t end, int64_t d,
                         int64_t stride, const double *inputs, const double *students, double *z,
                         double *output)
{
    const int64_t pieces = pieces_of(d, most_neurons);
    for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t j = piece_begin(d, pieces, piece);
        const int64_t neurons = piece_begin(d, pieces, piece + 1) - j;
        for (int64_t n = begin; n < end; n += samples) {
            double *tile = z + (n * d + j) * WIDTH;
            COLUMNS(forward_tile, samples, neurons, d, stride, inputs + n, students + j * d * WIDTH, tile,
                    output + n * WIDTH)
        }
    }
}

/* z [count][d][lane], output [count][lane] from 0. */
static void forward(int64_t count, int64_t d, int64_t stride, const double *inputs, const double *students,
                    double *z, double *output)
{
    for (int64_t n = 0; n < count; ++n)
        store(output + n * WIDTH, splat(0));
    const int64_t whole = count - count % SAMPLES, paired = count - count % REST_SAMPLES;
    forward_rows(SAMPLES, NEURONS, 0, whole, d, stride, inputs, students, z, output);
    forward_rows(REST_SAMPLES, REST_NEURONS, whole, paired, d, stride, inputs, students, z, output);
    forward_rows(1, REST_NEURONS, paired, count, d, stride, inputs, students, z, output);
}

/* -- The gradient ---------------------------------------------------------------------------------- */

struct gradient {
    int64_t dimension, stride, samples;
    const double *inputs; /* [d][stride], from the first of the samples on */
    const double *gated;  /* [samples][d][lane] r_n 1[z_nj > 0] */
    double *sums;         /* [d][d][lane] of the samples before */
    double *students;
    vector factor;
    bool first, last; /* samples of the batch */
};

/* The sums of x_ni gated_nj over the samples for a tile; with the last samples the students take their step. */
INLINE void gradient_tile(const int components, const int neurons, const struct gradient *g, int64_t i0,
                          int64_t j0)
{
    const int64_t d = g->dimension, stride = g->stride, samples = g->samples;
    const double *inputs = g->inputs + i0 * stride, *gated = g->gated + j0 * WIDTH;
    double *sums = g->sums + (j0 * d + i0) * WIDTH, *students = g->students + (j0 * d + i0) * WIDTH;
    vector sum[TILE_MAX][TILE_MAX];
#pragma GCC unroll 8
    for (int i = 0; i < components; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j)
            sum[i][j] = g->first ? splat(0) : load(sums + (j * d + i) * WIDTH);
    for (int64_t n = 0; n < samples; ++n)
#pragma GCC unroll 8
        for (int i = 0; i < components; ++i) {
            const vector x = splat(inputs[i * stride + n]);
#pragma GCC unroll 8
            for (int j = 0; j < neurons; ++j)
                sum[i][j] = multiply_add(x, load(gated + (n * d + j) * WIDTH), sum[i][j]);
        }
#pragma GCC unroll 8
    for (int i = 0; i < components; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j) {
            const int64_t at = (j * d + i) * WIDTH;
            if (g->last)
                store(students + at, multiply_add(g->factor, sum[i][j], load(students + at)));
            else
                store(sums + at, sum[i][j]);
        }
}

INLINE void gradient_rows(const int components, const struct gradient *g, int64_t i, int64_t j,
                          int64_t neurons)
{
    COLUMNS(gradient_tile, components, neurons, g, i, j)
}

static void add_gradient(const struct gradient *g)
{
    const int64_t d = g->dimension;
    const int64_t columns = pieces_of(d, GRADIENT_NEURONS), rows = pieces_of(d, COMPONENTS);
    for (int64_t column = 0; column < columns; ++column) {
        const int64_t j = piece_begin(d, columns, column), neurons = piece_begin(d, columns, column + 1) - j;
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t i = piece_begin(d, rows, row);
            switch (piece_begin(d, rows, row + 1) - i) {
            case 1:
                gradient_rows(1, g, i, j, neurons);
                break;
            case 2:
                gradient_rows(2, g, i, j, neurons);
                break;
            case 3:
                gradient_rows(3, g, i, j, neurons);
                break;
            case 4:
                gradient_rows(4, g, i, j, neurons);
                break;
            default:
                gradient_rows(5, g, i, j, neurons);
            }
        }
    }
}

/* -- The step -------------------------------------------------------------------------------------- */

/* Z becomes gated: r_n where z_nj > 0, else 0. Adds r_n^2 to *squares. */
static void gate(int64_t count, int64_t d, const double *target, int64_t target_lanes, const double *output,
                 double *z, vector *squares)
{
    for (int64_t n = 0; n < count; ++n) {
        const vector wanted = target_lanes == 1 ? splat(target[n]) : load(target + n * WIDTH);
        const vector residual = load(output + n * WIDTH) - wanted;
        *squares += residual * residual;
        for (int64_t j = 0; j < d; ++j) {
            double *at = z + (n * d + j) * WIDTH;
            store(at, (vector)((mask)residual & (load(at) > splat(0))));
        }
    }
}

static void step(const struct kernels_step *s)
{
    const int64_t d = s->dimension, pieces = pieces_of(s->batch, KERNELS_STEP_SAMPLES);
    double *output = s->workspace, *z = output + KERNELS_STEP_SAMPLES * WIDTH;
    struct gradient gradient = {.dimension = d,
                                .stride = s->stride,
                                .gated = z,
                                .sums = z + KERNELS_STEP_SAMPLES * d * WIDTH,
                                .students = s->students,
                                .factor = load(s->factor)};
    vector squares = splat(0);
    for (int64_t piece = 0; piece < pieces; ++piece) {
        /* Whole tiles of samples but in the last piece. */
        const int64_t begin = piece_begin(s->batch, pieces, piece) / SAMPLES * SAMPLES;
        const int64_t end =
            piece + 1 == pieces ? s->batch : piece_begin(s->batch, pieces, piece + 1) / SAMPLES * SAMPLES;
        const double *inputs = s->inputs + begin;
        forward(end - begin, d, s->stride, inputs, s->students, z, output);
        gate(end - begin, d, s->target + begin * s->target_lanes, s->target_lanes, output, z, &squares);
        gradient.inputs = inputs;
        gradient.samples = end - begin;
        gradient.first = begin == 0;
        gradient.last = end == s->batch;
        add_gradient(&gradient);
    }
    store(s->squares, squares);
}

/* -- One network, samples in the lanes ------------------------------------------------------------- */

INLINE void output_tile(const int vectors, const int neurons, int64_t d, int64_t stride, const double *inputs,
                        const double *columns, double *ret)
{
    vector sum[TILE_MAX][TILE_MAX];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j)
            sum[v][j] = splat(0);
    for (int64_t i = 0; i < d; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j) {
            const vector weight = splat(columns[j * d + i]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                sum[v][j] = multiply_add(load(inputs + i * stride + v * WIDTH), weight, sum[v][j]);
        }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
        vector total = load(ret + v * WIDTH);
#pragma GCC unroll 8
        for (int j = 0; j < neurons; ++j)
            total += positive(sum[v][j]);
        store(ret + v * WIDTH, total);
    }
}

/* The same sums in the same order as forward(): a student that equals its teacher has a residual of exactly 0. */
static void output(int64_t d, int64_t batch, int64_t stride, const double *inputs, const double *columns,
                   double *ret)
{
    memset(ret, 0, (size_t)batch * sizeof *ret);
    const int64_t pieces = pieces_of(d, REST_NEURONS), tile = SAMPLES / 2 * WIDTH,
                  whole = batch - batch % tile;
    /* A tile of the inputs stays in the first cache while all neurons pass by; the other way round all inputs would pass by
     * each piece of them. */
    for (int64_t n = 0; n < batch; n += n < whole ? tile : WIDTH)
        for (int64_t piece = 0; piece < pieces; ++piece) {
            const int64_t j = piece_begin(d, pieces, piece), neurons = piece_begin(d, pieces, piece + 1) - j;
            if (n < whole)
                COLUMNS(output_tile, SAMPLES / 2, neurons, d, stride, inputs + n, columns + j * d, ret + n)
            else
                COLUMNS(output_tile, 1, neurons, d, stride, inputs + n, columns + j * d, ret + n)
        }
}

/* -- The distance from the teacher ----------------------------------------------------------------- */

/* Interleaved sums, of the entries k, k + SUMS, … */
enum { SUMS = 8 };

static void add_up(const vector sum[SUMS], double *ret)
{
    store(ret, ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7])));
}

/* teachers: [d][d], or with `own` [d][d][lane]. The same sums in the same order. */
INLINE void add_distances(const bool own, int64_t d, const double *teachers, const double *students,
                          double *ret)
{
    vector sum[SUMS] = {0};
    int64_t k = 0;
    for (; k + SUMS <= d * d; k += SUMS)
#pragma GCC unroll 8
        for (int u = 0; u < SUMS; ++u) {
            const vector teacher = own ? load(teachers + (k + u) * WIDTH) : splat(teachers[k + u]);
            const vector delta = load(students + (k + u) * WIDTH) - teacher;
            sum[u] = multiply_add(delta, delta, sum[u]);
        }
    for (int u = 0; k + u < d * d; ++u) {
        const vector teacher = own ? load(teachers + (k + u) * WIDTH) : splat(teachers[k + u]);
        const vector delta = load(students + (k + u) * WIDTH) - teacher;
        sum[u] = multiply_add(delta, delta, sum[u]);
    }
    add_up(sum, ret);
}

static void distances(int64_t d, const double *teacher, const double *students, double *ret)
{
    add_distances(false, d, teacher, students, ret);
}

static void distances_from_own(int64_t d, const double *teachers, const double *students, double *ret)
{
    add_distances(true, d, teachers, students, ret);
}

extern const struct kernels_fused CONCATENATE(kernels_fused_, KERNELS_SUFFIX);

const struct kernels_fused CONCATENATE(kernels_fused_, KERNELS_SUFFIX) = {
    .lanes = WIDTH,
    .step = step,
    .output = output,
    .distances = distances,
    .distances_from_own = distances_from_own,
};
