/* The core's functions behind flat arguments, as a shared library, so that tests in Python can hold them
 * against NumPy, PyTorch and mpmath on the same inputs. */
#include <stdlib.h>
#include <string.h>

#include "sgdmap/landscape.h"
#include "sgdmap/linalg.h"
#include "sgdmap/model.h"
#include "sgdmap/rng.h"
#include "sgdmap/samples.h"
#include "sgdmap/train.h"

void probe_setup(void);
const char *probe_family(void);
int probe_normals(const char *isa, uint64_t seed, int64_t replicate, int64_t dimension, int purpose,
                  int64_t step, int64_t count, double *ret);
int probe_inputs(const char *isa, uint64_t seed, int64_t replicate, int64_t dimension, int input,
                 int64_t step, int64_t batch, int64_t data, double *ret, double *noise);
void probe_permutation(uint64_t seed, int64_t replicate, int64_t dimension, int64_t epoch, int64_t count,
                       uint32_t *ret);
int probe_model(uint64_t seed, int64_t replicate, int64_t dimension, int kind, int64_t rank,
                double teacher_norm, double init_scale, int link, double *teacher, double *student);
int probe_landscape(const char *isa, int64_t dimension, const double *teacher, const double *student,
                    double *values, double *gradient);
double probe_spectral_norm(int64_t dimension, const double *a);
int probe_train(const char *isa, const int64_t *integers, const double *scalars, const double *reals,
                const int64_t *kinds, double *fields, int64_t *outcomes, double *finals, double *students);

void probe_setup(void)
{
    linalg_setup();
}

const char *probe_family(void)
{
    return linalg_kernel_family();
}

/* ret [count] */
int probe_normals(const char *isa, uint64_t seed, int64_t replicate, int64_t dimension, int purpose,
                  int64_t step, int64_t count, double *ret)
{
    const struct kernels *kernels = kernels_select(isa);
    if (kernels == NULL)
        return -1;
    double *padded = linalg_new(rng_padded(count));
    if (padded == NULL)
        return 1;
    rng_normals(kernels, rng_key(seed, replicate, dimension, (enum rng_purpose)purpose), (uint64_t)step,
                count, padded);
    memcpy(ret, padded, (size_t)count * sizeof *ret);
    free(padded);
    return 0;
}

/* ret [dimension][batch]; data: of the training set, or 0; data -1: the first `batch` samples of the test set. noise [batch],
 * may be NULL. */
int probe_inputs(const char *isa, uint64_t seed, int64_t replicate, int64_t dimension, int input,
                 int64_t step, int64_t batch, int64_t data, double *ret, double *noise)
{
    const struct kernels *kernels = kernels_select(isa);
    if (kernels == NULL)
        return -1;
    const struct samples_plan plan = {.seed = seed,
                                      .replicate = replicate,
                                      .dimension = dimension,
                                      .input = (enum input_kind)input,
                                      .batch = data < 0 ? 0 : batch,
                                      .data = data < 0 ? 0 : data,
                                      .test = data < 0 ? batch : 0,
                                      .noise = noise != NULL};
    struct samples *samples;
    int code = samples_new(kernels, &plan, &samples, NULL);
    if (code != 0)
        return code;
    for (int64_t piece = 0, done = 0, count; data < 0 && done < batch; ++piece, done += count) {
        const double *x = samples_test(samples, piece, &count);
        for (int64_t c = 0; c < dimension; ++c)
            memcpy(ret + c * batch + done, x + c * SAMPLES_PIECE, (size_t)count * sizeof *ret);
    }
    if (data >= 0)
        samples_step(samples, step, batch, ret);
    if (noise != NULL)
        samples_noise(samples, step, noise);
    samples_free(samples);
    return 0;
}

/* ret [count] */
void probe_permutation(uint64_t seed, int64_t replicate, int64_t dimension, int64_t epoch, int64_t count,
                       uint32_t *ret)
{
    rng_permutation(rng_key(seed, replicate, dimension, RNG_SHUFFLE), (uint64_t)epoch, count, ret);
}

/* teacher, student [d][d], columns */
int probe_model(uint64_t seed, int64_t replicate, int64_t dimension, int kind, int64_t rank,
                double teacher_norm, double init_scale, int link, double *teacher, double *student)
{
    double *direction = linalg_new(rng_padded(dimension * dimension)),
           *workspace = linalg_new(model_workspace(dimension));
    const int code = direction == NULL || workspace == NULL;
    if (!code) {
        model_teacher_direction(kernels_select(NULL), seed, replicate, dimension, (enum teacher_kind)kind,
                                rank, direction, workspace);
        memcpy(teacher, direction, (size_t)(dimension * dimension) * sizeof *teacher);
        model_teacher(dimension, teacher_norm, teacher);
        model_initial_direction(kernels_select(NULL), seed, replicate, dimension, direction);
        model_student(direction, dimension, init_scale, (enum link_kind)link, student);
    }
    free(direction);
    free(workspace);
    return code;
}

/* values [6] as struct diagnostics; gradient [d][d], columns */
int probe_landscape(const char *isa, int64_t dimension, const double *teacher, const double *student,
                    double *values, double *gradient)
{
    const struct kernels *kernels = kernels_select(isa);
    if (kernels == NULL)
        return -1;
    struct landscape *landscape;
    struct diagnostics diagnostics;
    int code = landscape_new(kernels, dimension, teacher, &landscape, NULL);
    if (code != 0)
        return code;
    landscape_measure(landscape, student, &diagnostics, gradient);
    memcpy(values, &diagnostics, sizeof diagnostics);
    landscape_free(landscape);
    return 0;
}

double probe_spectral_norm(int64_t dimension, const double *a)
{
    double *workspace = linalg_new(linalg_spectral_workspace(dimension));
    double norm = linalg_spectral_norm(kernels_select(NULL), dimension, a, dimension, workspace);
    free(workspace);
    return norm;
}

/* integers: dimension, batch, seed, replicate, steps, record_count, run_count, in_lanes, input, gradient, data,
 * test_samples, teacher_rank. scalars: tolerance, decay, s a slice. reals [runs][4]: step_size, init_scale, teacher_norm,
 * noise. kinds [runs][3]: link, teacher, schedule. fields [RECORD_FIELD_COUNT][runs][records]; outcomes [runs][4]: outcome,
 * steps_done, converged_step, phase2_step; finals [runs][3]: final_error, final_loss, wall_time; students
 * [runs][d][d] rows. */
int probe_train(const char *isa, const int64_t *integers, const double *scalars, const double *reals,
                const int64_t *kinds, double *fields, int64_t *outcomes, double *finals, double *students)
{
    const int64_t d = integers[0], runs = integers[6], records = integers[5];
    struct train_run *list = calloc((size_t)runs, sizeof *list);
    int64_t *steps = calloc((size_t)records, sizeof *steps);
    struct trainer *trainer = NULL;
    int code = list == NULL || steps == NULL;
    if (!code) {
        for (int64_t r = 0; r < runs; ++r)
            list[r] = (struct train_run){.step_size = reals[4 * r],
                                         .init_scale = reals[4 * r + 1],
                                         .teacher_norm = reals[4 * r + 2],
                                         .noise = reals[4 * r + 3],
                                         .link = (enum link_kind)kinds[3 * r],
                                         .teacher = (enum teacher_kind)kinds[3 * r + 1],
                                         .schedule = (enum schedule_kind)kinds[3 * r + 2]};
        record_steps(integers[4], records, steps);
        struct train_group group = {.dimension = d,
                                    .batch_size = integers[1],
                                    .input = (enum input_kind)integers[8],
                                    .in_lanes = integers[7] != 0,
                                    .seed = (uint64_t)integers[2],
                                    .replicate = integers[3],
                                    .steps = integers[4],
                                    .gradient = (enum gradient_kind)integers[9],
                                    .data = integers[10],
                                    .test_samples = integers[11],
                                    .teacher_rank = integers[12],
                                    .tolerance = scalars[0],
                                    .decay = scalars[1],
                                    .record_count = records,
                                    .record_steps = steps,
                                    .fields = (1u << RECORD_FIELD_COUNT) - 1 -
                                              (integers[11] > 0 ? 0 : 1u << RECORD_TEST_LOSS),
                                    .run_count = runs,
                                    .runs = list};
        code = trainer_new(kernels_select(isa), &group, &trainer, NULL);
    }
    if (!code) {
        while (!trainer_advance(trainer, scalars[2]))
            ;
        for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
            for (int64_t at = 0; at < runs * records; ++at) {
                const double *field = trainer_field(trainer, (enum record_field)f);
                fields[f * runs * records + at] = field != NULL ? field[at] : 0;
            }
        for (int64_t r = 0; r < runs; ++r) {
            const struct run_result *result = &trainer_results(trainer)[r];
            outcomes[4 * r] = result->outcome;
            outcomes[4 * r + 1] = result->steps_done;
            outcomes[4 * r + 2] = result->converged_step;
            outcomes[4 * r + 3] = result->phase2_step;
            finals[3 * r] = result->final_error;
            finals[3 * r + 1] = result->final_loss;
            finals[3 * r + 2] = result->wall_time;
            trainer_student(trainer, r, students + r * d * d);
        }
    }
    trainer_free(trainer);
    free(list);
    free(steps);
    return code;
}
