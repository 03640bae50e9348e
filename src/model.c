#include "sgdmap/model.h"

#include <math.h>
#include <string.h>

#include "sgdmap/linalg.h"
#include "sgdmap/rng.h"

void model_directions(const struct kernels *kernels, uint64_t seed, int64_t replicate, int64_t dimension,
                      struct model_directions *ret, double *workspace)
{
    const int64_t d = dimension;
    rng_normals(kernels, rng_key(seed, replicate, d, RNG_TEACHER), 0, d * d, ret->teacher);
    rng_normals(kernels, rng_key(seed, replicate, d, RNG_INITIAL), 0, d * d, ret->initial);
    double norm = linalg_spectral_norm(kernels, d, ret->teacher, d, workspace);
    double deviation = sqrt((double)d);
    for (int64_t i = 0; i < d * d; ++i) {
        ret->teacher[i] /= norm;
        ret->initial[i] /= deviation;
    }
}

static void scaled_with_identity(const double *direction, int64_t dimension, double scale, double identity,
                                 double *ret)
{
    for (int64_t i = 0; i < dimension * dimension; ++i)
        ret[i] = scale * direction[i];
    for (int64_t j = 0; j < dimension; ++j)
        ret[j * dimension + j] += identity;
}

void model_teacher(const struct model_directions *directions, int64_t dimension, double teacher_norm,
                   double *ret)
{
    scaled_with_identity(directions->teacher, dimension, teacher_norm, 1, ret);
}

void model_student(const struct model_directions *directions, int64_t dimension, double init_scale,
                   enum link_kind link, double *ret)
{
    scaled_with_identity(directions->initial, dimension, init_scale, link == LINK_IDENTITY ? 1 : 0, ret);
}

/* Normals of which a sample takes its length, behind its components. */
enum { STUDENT_FREEDOM = 5 };

int64_t model_inputs_scratch(int64_t dimension, int64_t batch)
{
    return rng_padded(batch * (dimension + STUDENT_FREEDOM));
}

static double sum_of_squares(const double *x, int64_t count)
{
    double sum[4] = {0}; /* under way at a time */
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; ++k)
            sum[k] += x[i + k] * x[i + k];
    for (; i < count; ++i)
        sum[0] += x[i] * x[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* By what a sample of normals z is multiplied. Student's t with nu degrees of freedom has the covariance nu / (nu - 2):
 * z sqrt((nu - 2) / chi^2_nu) has the identity's. */
static double sample_scale(enum input_kind input, const double *z, int64_t d)
{
    if (input == INPUT_SPHERE)
        return sqrt((double)d / sum_of_squares(z, d));
    return sqrt((STUDENT_FREEDOM - 2) / sum_of_squares(z + d, STUDENT_FREEDOM));
}

void model_inputs(const struct kernels *kernels, uint64_t seed, int64_t replicate, int64_t dimension,
                  enum input_kind input, int64_t step, int64_t batch, int64_t stride, double *scratch,
                  double *ret)
{
    const int64_t d = dimension;
    struct rng_key key = rng_key(seed, replicate, d, (enum rng_purpose)(RNG_INPUT_GAUSSIAN + (int)input));
    static const enum kernels_law laws[INPUT_KIND_COUNT] = {[INPUT_LAPLACE] = KERNELS_LAPLACE,
                                                            [INPUT_UNIFORM] = KERNELS_UNIFORM,
                                                            [INPUT_RADEMACHER] = KERNELS_RADEMACHER};
    const int64_t pitch = input == INPUT_STUDENT_T ? d + STUDENT_FREEDOM : d;
    /* A sample's components are neighbours in the stream, so that a sample does not depend on the batch; the
     * products want the samples as neighbours. */
    rng_variates(kernels, laws[input], key, (uint64_t)step, batch * pitch, scratch);
    if (input == INPUT_SPHERE || input == INPUT_STUDENT_T)
        for (int64_t n = 0; n < batch; ++n) {
            double *z = scratch + n * pitch;
            const double scale = sample_scale(input, z, d);
            for (int64_t c = 0; c < d; ++c)
                z[c] *= scale;
        }
    enum { TILE = 16 };
    for (int64_t first = 0; first < batch; first += TILE) {
        int64_t last = first + TILE < batch ? first + TILE : batch;
        for (int64_t c = 0; c < d; ++c)
            for (int64_t n = first; n < last; ++n)
                ret[c * stride + n] = scratch[n * pitch + c];
    }
}
