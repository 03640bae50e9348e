/* What tests/bench/compare times, behind flat arguments. Every function works for about `seconds` and returns the mean
 * seconds of what it says, or NaN if memory is short. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_parts.h"
#include "sgdmap/cost.h"
#include "sgdmap/landscape.h"
#include "sgdmap/linalg.h"
#include "sgdmap/samples.h"
#include "sgdmap/stopwatch.h"
#include "sgdmap/train.h"

void bench_setup(void);
const char *bench_family(void);
const char *bench_kernels(void);
struct trainer *bench_new(int64_t dimension, int64_t batch, int64_t runs);
struct trainer *bench_new_kind(int64_t dimension, int64_t batch, int64_t runs, const int64_t *kinds);
void bench_free(struct trainer *trainer);
double bench_step(struct trainer *trainer, double seconds);
double bench_products(int64_t dimension, int64_t batch, int64_t runs, double seconds);
double bench_exact_products(int64_t dimension, double seconds);
double bench_peak(double seconds);
void bench_parts(int64_t dimension, int64_t batch, double seconds, double *ret);

void bench_setup(void)
{
    linalg_setup();
}

const char *bench_family(void)
{
    return linalg_kernel_family();
}

const char *bench_kernels(void)
{
    return kernels_select(NULL)->name;
}

/* A group of which no run ends and that has taken its first record. kinds [6]: gradient, samples of the training set, input,
 * whether labels have noise, and runs have different schedules; how many kinds of teachers there are, or -1: one,
 * orthogonal. */
struct trainer *bench_new_kind(int64_t dimension, int64_t batch, int64_t runs, const int64_t *kinds)
{
    struct train_run *list = calloc((size_t)runs, sizeof *list);
    const int64_t steps[] = {0, INT64_C(1) << 40};
    if (list == NULL)
        return NULL;
    for (int64_t r = 0; r < runs; ++r)
        list[r] = (struct train_run){
            .step_size = 1e-9,
            .init_scale = 1,
            .teacher_norm = 0.5,
            .noise = kinds[3] != 0 ? 0.1 : 0,
            .schedule = (enum schedule_kind)(kinds[4] != 0 ? r % SCHEDULE_KIND_COUNT : SCHEDULE_CONSTANT),
            /* One after the other, as in a sweep. */
            .teacher = kinds[5] < 0 ? TEACHER_ORTHOGONAL : (enum teacher_kind)(r * kinds[5] / runs)};
    const bool population = kinds[0] == GRADIENT_POPULATION;
    const struct train_group group = {.dimension = dimension,
                                      .batch_size = population ? 0 : batch,
                                      .gradient = (enum gradient_kind)kinds[0],
                                      .data = kinds[1],
                                      .input = (enum input_kind)kinds[2],
                                      .in_lanes = !population && cost_in_lanes(dimension, runs),
                                      .seed = 1,
                                      .steps = steps[1],
                                      .teacher_rank = 1,
                                      .decay = 1e6,
                                      .record_count = 2,
                                      .record_steps = steps,
                                      .fields = 1u << RECORD_ERROR,
                                      .run_count = runs,
                                      .runs = list};
    struct trainer *trainer = NULL;
    if (trainer_new(kernels_select(NULL), &group, &trainer, NULL) != 0)
        trainer = NULL;
    while (trainer != NULL && !(trainer_progress(trainer).done > 0))
        trainer_advance(trainer, 0);
    free(list);
    return trainer;
}

struct trainer *bench_new(int64_t dimension, int64_t batch, int64_t runs)
{
    return bench_new_kind(dimension, batch, runs, (const int64_t[6]){[5] = 1});
}

void bench_free(struct trainer *trainer)
{
    trainer_free(trainer);
}

/* A step of the whole group. */
double bench_step(struct trainer *trainer, double seconds)
{
    if (trainer == NULL)
        return NAN;
    const double before = trainer_progress(trainer).done, start = stopwatch_now();
    double done = 0;
    /* To the end of a step of all runs. */
    while (!(done > 0) || stopwatch_now() < start + seconds) {
        trainer_advance(trainer, seconds / 4);
        done = trainer_progress(trainer).done - before;
    }
    for (double last = done; !(done > last); done = trainer_progress(trainer).done - before)
        trainer_advance(trainer, 0);
    return (stopwatch_now() - start) / (done * (double)(INT64_C(1) << 40));
}

/* The two products of a step of all runs on BLIS: the students' columns side by side, about 400 at a time, which is where it
 * is fastest. */
double bench_products(int64_t dimension, int64_t batch, int64_t runs, double seconds)
{
    int64_t width = 400 / dimension;
    width = width < 1 ? 1 : width > runs ? runs : width;
    const int64_t columns = width * dimension, panels = (runs + width - 1) / width;
    double *x = linalg_new(batch * dimension), *a = linalg_new(panels * columns * dimension);
    double *z = linalg_new(batch * columns), ret = NAN;
    if (x != NULL && a != NULL && z != NULL) {
        const double start = stopwatch_now();
        double time = 0;
        int64_t steps = 0;
        for (; steps < 1 || time < seconds; ++steps) {
            for (int64_t p = 0; p < panels; ++p) {
                double *panel = a + p * columns * dimension;
                linalg_product(LINALG_PLAIN, batch, columns, dimension, x, batch, panel, dimension, 0, z,
                               batch);
                linalg_product(LINALG_TRANSPOSED, dimension, columns, batch, x, batch, z, batch, 1, panel,
                               dimension);
            }
            time = stopwatch_now() - start;
        }
        /* The last panel may be wider than there are runs. */
        ret = time / (double)steps * (double)runs / (double)(panels * width);
    }
    free(x);
    free(a);
    free(z);
    return ret;
}

static const struct bench_isa *isa(void)
{
    static const struct bench_isa *const all[] = {
#if defined __x86_64__
        &bench_isa_avx512,
        &bench_isa_avx2,
#endif
        &bench_isa_baseline
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        if (strcmp(all[i]->name, bench_kernels()) == 0)
            return all[i];
    return &bench_isa_baseline;
}

/* The four products of [d][d] matrices that a step along the population's gradient needs: of teacher and student with the
 * student's columns, and with the angles between them. By BLIS, or the smallest ones by the kernel that is faster there. */
double bench_exact_products(int64_t dimension, double seconds)
{
    const int64_t d = dimension, n = kernels_padded(d);
    double *a = linalg_new(n * d), *b = linalg_new(n * d), *c = linalg_new(n * d);
    double time = NAN;
    if (a != NULL && b != NULL && c != NULL) {
        for (int64_t i = 0; i < n * d; ++i) {
            a[i] = 1e-3 * (double)(i % 7);
            b[i] = 1e-3 * (double)(i % 5);
        }
        const double start = stopwatch_now();
        int64_t steps = 0;
        for (time = 0; steps < 1 || time < seconds; ++steps, time = stopwatch_now() - start)
            for (int product = 0; product < 4; ++product) {
                if (d <= 64)
                    kernels_select(NULL)->multiply(n, d, d, a, n, b, false, c);
                else
                    linalg_product(product % 2 == 0 ? LINALG_TRANSPOSED : LINALG_PLAIN, d, d, d, a, n, b, n,
                                   0, c, n);
            }
        time /= (double)steps;
    }
    free(a);
    free(b);
    free(c);
    return time;
}

/* A fused multiply-add of two flop, of the 32 or so that the core can have under way. */
double bench_peak(double seconds)
{
    double best = INFINITY;
    for (const double end = stopwatch_now() + seconds; stopwatch_now() < end;) {
        const double start = stopwatch_now(), flop = isa()->multiply_adds();
        best = fmin(best, (stopwatch_now() - start) / flop);
    }
    return best;
}

/* ret [6]: drawing a batch; a teacher's output (on BLIS without the ReLU); and of a run: Z, the gate, the gradient with the update, the error. Where BLIS
 * trains, Z and the gradient are products. */
void bench_parts(int64_t dimension, int64_t batch, double seconds, double *ret)
{
    const int64_t d = dimension, lanes = kernels_select(NULL)->fused->lanes, stride = kernels_padded(batch);
    const struct kernels *kernels = kernels_select(NULL);
    double *x = linalg_new(d * stride), *output = linalg_new(stride);
    double *a = linalg_new(d * d * lanes),
           *work = linalg_new(d * (stride + d) * lanes + (stride + 8) * lanes);
    double factor[KERNELS_LANES] = {0};
    const struct samples_plan plan = {.seed = 1, .dimension = d, .batch = batch};
    struct samples *samples = NULL;
    for (int i = 0; i < 6; ++i)
        ret[i] = NAN;
    if (samples_new(kernels, &plan, &samples, NULL) == 0 && x != NULL && output != NULL && a != NULL &&
        work != NULL) {
        const bool in_lanes = cost_in_lanes(d, lanes);
        for (int part = 0; part < 6; ++part) {
            const double start = stopwatch_now();
            double time = 0;
            int64_t steps = 0;
            for (; steps < 1 || time < seconds; ++steps) {
                if (part == 0)
                    samples_step(samples, steps, stride, x);
                else if (part == 1 && in_lanes)
                    kernels->fused->output(d, stride, stride, x, a, output);
                else if (in_lanes)
                    isa()->part(part - 2, d, batch, stride, x, output, factor, a, work);
                else if (part == 1 || part == 2)
                    linalg_product(LINALG_PLAIN, batch, d, d, x, stride, a, d, 0, work, stride);
                else if (part == 3)
                    kernels->gate(stride, d, stride, -1e-9, output, work, work + d * stride);
                else if (part == 4)
                    linalg_product(LINALG_TRANSPOSED, d, d, batch, x, stride, work, stride, 1, a, d);
                else
                    factor[0] += kernels->squared_distance(d * d, a, a);
                time = stopwatch_now() - start;
            }
            ret[part] = time / (double)steps / (double)(part >= 2 && in_lanes ? lanes : 1);
        }
    }
    free(x);
    samples_free(samples);
    free(output);
    free(a);
    free(work);
}
