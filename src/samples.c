#include "sgdmap/samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/linalg.h"
#include "sgdmap/model.h"
#include "sgdmap/rng.h"

/* Samples of which number n is that of the stream at step n, so that each can be had alone. */
struct set {
    struct rng_key key;
    int64_t count;
    double *kept; /* [count][d], or NULL: too many */
};

struct samples {
    const struct kernels *kernels;
    struct samples_plan plan;
    int64_t pitch;  /* between samples of a stream */
    int64_t padded; /* variates that are drawn for one alone */
    struct set data, test;
    double *pieces; /* of the test set, all [pieces][d][SAMPLES_PIECE], or one of a set that is too large */
    bool pieces_kept;
    struct rng_key fresh, noise, shuffle;
    double *stream;      /* [rng_padded(batch * pitch)], or a tile of samples drawn one by one */
    double *uniforms;    /* [rng_padded(batch)], or of a training set [rng_padded(data)] */
    uint32_t *order;     /* [data] of the epoch */
    int64_t epoch;       /* that `order` is of; -1: none yet */
    int64_t epoch_steps; /* data / batch */
};

/* Samples that are transposed at a time, so that a line of the cache is written whole. */
enum { TILE = 16 };

/* Variates of uniform entries have variance 1, so they reach to sqrt 3. */
static const double UNIFORM_BOUND = 0x1.bb67ae8584caap0;

/* Sample n of a set into ret [padded]. */
static void draw_one(const struct samples *s, const struct set *set, int64_t n, double *ret)
{
    model_inputs(s->kernels, set->key, s->plan.dimension, s->plan.input, n, 1, ret);
}

/* Of a stream whose purpose has one number for each kind of input. */
static struct rng_key input_key(const struct samples_plan *p, enum rng_purpose purpose)
{
    const enum rng_purpose of_input = (enum rng_purpose)((int)purpose + (int)p->input);
    return rng_key(p->seed, p->replicate, p->dimension, of_input);
}

static int64_t piece_count(int64_t test)
{
    return (test + SAMPLES_PIECE - 1) / SAMPLES_PIECE;
}

static void keep_data(struct samples *s)
{
    const int64_t d = s->plan.dimension;
    for (int64_t n = 0; s->data.kept != NULL && n < s->data.count; ++n) {
        draw_one(s, &s->data, n, s->stream);
        memcpy(s->data.kept + n * d, s->stream, (size_t)d * sizeof *s->stream);
    }
}

/* ret [d][stride] of `count` samples, `rows` where each begins. */
static void transpose(int64_t d, int64_t count, const double *const rows[TILE], int64_t stride, double *ret)
{
    for (int64_t c = 0; c < d; ++c)
        for (int64_t n = 0; n < count; ++n)
            ret[c * stride + n] = rows[n][c];
}

/* The samples of a set whose numbers are `numbers`, or from `first` on without them. */
static void take(const struct samples *s, const struct set *set, const uint32_t *numbers, int64_t first,
                 int64_t count, int64_t stride, double *ret)
{
    const int64_t d = s->plan.dimension;
    for (int64_t begin = 0; begin < count; begin += TILE) {
        const int64_t tile = count - begin < TILE ? count - begin : TILE;
        const double *rows[TILE] = {0};
        for (int64_t n = 0; n < tile; ++n) {
            const int64_t number = numbers != NULL ? numbers[begin + n] : first + begin + n;
            double *drawn = s->stream + n * s->padded;
            if (set->kept == NULL)
                draw_one(s, set, number, drawn);
            rows[n] = set->kept != NULL ? set->kept + number * d : drawn;
        }
        transpose(d, tile, rows, stride, ret + begin);
    }
}

static int64_t piece_samples(const struct samples *s, int64_t piece)
{
    const int64_t left = s->test.count - piece * SAMPLES_PIECE;
    return left < 0 ? 0 : left < SAMPLES_PIECE ? left : SAMPLES_PIECE;
}

static void draw_piece(const struct samples *s, int64_t piece, double *ret)
{
    take(s, &s->test, NULL, piece * SAMPLES_PIECE, piece_samples(s, piece), SAMPLES_PIECE, ret);
}

int samples_new(const struct kernels *kernels, const struct samples_plan *plan, struct samples **ret,
                struct error *err)
{
    struct samples *s = calloc(1, sizeof *s);
    if (s == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a group's samples");
    const int64_t d = plan->dimension, batch = plan->batch, pitch = model_pitch(plan->input, d);
    *s = (struct samples){.kernels = kernels,
                          .plan = *plan,
                          .pitch = pitch,
                          .padded = rng_padded(pitch),
                          .epoch = -1,
                          .epoch_steps = plan->data > 0 ? plan->data / batch : 0};
    const bool fixed = plan->data > 0;
    s->fresh = input_key(plan, RNG_INPUT);
    s->noise = rng_key(plan->seed, plan->replicate, d, fixed ? RNG_DATA_NOISE : RNG_NOISE);
    s->shuffle = rng_key(plan->seed, plan->replicate, d, RNG_SHUFFLE);
    s->data = (struct set){.key = input_key(plan, RNG_DATA), .count = plan->data};
    s->test = (struct set){.key = input_key(plan, RNG_TEST), .count = plan->test};
    s->pieces_kept = samples_are_kept(d, plan->test);
    const int64_t stream = rng_padded(batch * pitch), labels = fixed ? plan->data : batch;
    const int64_t pieces = s->pieces_kept || plan->test == 0 ? piece_count(plan->test) : 1;
    bool ok = (s->stream = linalg_new(stream > TILE * s->padded ? stream : TILE * s->padded)) != NULL;
    if (plan->noise)
        ok = (s->uniforms = linalg_new(rng_padded(labels))) != NULL && ok;
    if (fixed)
        ok = (s->order = malloc((size_t)plan->data * sizeof *s->order)) != NULL && ok;
    if (fixed && samples_are_kept(d, plan->data))
        ok = (s->data.kept = linalg_new(plan->data * d)) != NULL && ok;
    if (pieces > 0)
        ok = (s->pieces = linalg_new(pieces * d * SAMPLES_PIECE)) != NULL && ok;
    if (!ok) {
        samples_free(s);
        return error_set(err, ERROR_MEMORY, "out of memory for a group's samples");
    }
    keep_data(s);
    for (int64_t piece = 0; s->pieces_kept && piece < pieces; ++piece)
        draw_piece(s, piece, s->pieces + piece * d * SAMPLES_PIECE);
    if (fixed && plan->noise)
        rng_variates(kernels, KERNELS_UNIFORM, s->noise, 0, labels, s->uniforms);
    *ret = s;
    return 0;
}

void samples_free(struct samples *s)
{
    if (s == NULL)
        return;
    free(s->data.kept);
    free(s->pieces);
    free(s->stream);
    free(s->uniforms);
    free(s->order);
    free(s);
}

/* The numbers of a step's samples in the training set. */
static const uint32_t *numbers_of(struct samples *s, int64_t step)
{
    const int64_t epoch = step / s->epoch_steps;
    if (epoch != s->epoch)
        rng_permutation(s->shuffle, (uint64_t)epoch, s->plan.data, s->order);
    s->epoch = epoch;
    return s->order + step % s->epoch_steps * s->plan.batch;
}

void samples_step(struct samples *s, int64_t step, int64_t stride, double *ret)
{
    const int64_t d = s->plan.dimension, batch = s->plan.batch;
    if (s->plan.data > 0) {
        take(s, &s->data, numbers_of(s, step), 0, batch, stride, ret);
        return;
    }
    /* A sample's components are neighbours in the stream, so that a sample does not depend on the batch; the products want
     * the samples as neighbours. */
    model_inputs(s->kernels, s->fresh, d, s->plan.input, step, batch, s->stream);
    for (int64_t begin = 0; begin < batch; begin += TILE) {
        const int64_t tile = batch - begin < TILE ? batch - begin : TILE;
        const double *rows[TILE] = {0};
        for (int64_t n = 0; n < tile; ++n)
            rows[n] = s->stream + (begin + n) * s->pitch;
        transpose(d, tile, rows, stride, ret + begin);
    }
}

void samples_noise(struct samples *s, int64_t step, double *ret)
{
    const int64_t batch = s->plan.batch;
    const uint32_t *numbers = s->plan.data > 0 ? numbers_of(s, step) : NULL;
    if (numbers == NULL)
        rng_variates(s->kernels, KERNELS_UNIFORM, s->noise, (uint64_t)step, batch, s->uniforms);
    for (int64_t n = 0; n < batch; ++n)
        ret[n] = s->uniforms[numbers != NULL ? (int64_t)numbers[n] : n] / UNIFORM_BOUND;
}

const double *samples_test(struct samples *s, int64_t piece, int64_t *count)
{
    *count = piece_samples(s, piece);
    if (s->pieces_kept)
        return s->pieces + piece * s->plan.dimension * SAMPLES_PIECE;
    draw_piece(s, piece, s->pieces);
    return s->pieces;
}
