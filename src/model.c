#include "sgdmap/model.h"

#include <math.h>
#include <string.h>

#include "sgdmap/linalg.h"
#include "sgdmap/rng.h"

int64_t model_workspace(int64_t dimension)
{
    return linalg_spectral_workspace(dimension) + rng_padded(2 * dimension * dimension);
}

/* ret [d][d] = U V', `both` the columns of U and then those of V. */
static void outer_products(int64_t d, int64_t rank, const double *both, double *ret)
{
    memset(ret, 0, (size_t)(d * d) * sizeof *ret);
    for (int64_t k = 0; k < rank; ++k) {
        const double *u = both + k * d, *v = both + (rank + k) * d;
        for (int64_t j = 0; j < d; ++j)
            for (int64_t i = 0; i < d; ++i)
                ret[j * d + i] += u[i] * v[j];
    }
}

/* ret [d][d], its first d entries over the largest of them on the diagonal; scratch [d]. */
static void diagonal_of_first(int64_t d, double *ret, double *scratch)
{
    double largest = 0;
    for (int64_t j = 0; j < d; ++j)
        largest = fmax(largest, fabs(ret[j]));
    memcpy(scratch, ret, (size_t)d * sizeof *ret);
    memset(ret, 0, (size_t)(d * d) * sizeof *ret);
    for (int64_t j = 0; j < d; ++j)
        ret[j * (d + 1)] = scratch[j] / largest;
}

void model_teacher_direction(const struct kernels *kernels, uint64_t seed, int64_t replicate,
                             int64_t dimension, enum teacher_kind kind, int64_t rank, double *ret,
                             double *workspace)
{
    const int64_t d = dimension;
    const struct rng_key key = rng_key(seed, replicate, d, RNG_TEACHER);
    double *both = workspace + linalg_spectral_workspace(d);
    if (kind == TEACHER_LOW_RANK) {
        rng_normals(kernels, key, 0, 2 * rank * d, both);
        outer_products(d, rank, both, ret);
    } else {
        rng_normals(kernels, key, 0, d * d, ret);
    }
    if (kind == TEACHER_ORTHOGONAL) {
        linalg_orthonormalize(kernels, d, ret, d, workspace);
    } else if (kind == TEACHER_DIAGONAL) {
        diagonal_of_first(d, ret, workspace);
    } else {
        const double norm = linalg_spectral_norm(kernels, d, ret, d, workspace);
        for (int64_t i = 0; i < d * d; ++i)
            ret[i] /= norm;
    }
}

void model_initial_direction(const struct kernels *kernels, uint64_t seed, int64_t replicate,
                             int64_t dimension, double *ret)
{
    const int64_t d = dimension;
    const double deviation = sqrt((double)d);
    rng_normals(kernels, rng_key(seed, replicate, d, RNG_INITIAL), 0, d * d, ret);
    for (int64_t i = 0; i < d * d; ++i)
        ret[i] /= deviation;
}

static void add_diagonal(int64_t d, double value, double *ret)
{
    for (int64_t j = 0; j < d; ++j)
        ret[j * (d + 1)] += value;
}

void model_teacher(int64_t dimension, double teacher_norm, double *ret)
{
    for (int64_t i = 0; i < dimension * dimension; ++i)
        ret[i] *= teacher_norm;
    add_diagonal(dimension, 1, ret);
}

void model_student(const double *initial, int64_t dimension, double init_scale, enum link_kind link,
                   double *ret)
{
    for (int64_t i = 0; i < dimension * dimension; ++i)
        ret[i] = init_scale * initial[i];
    add_diagonal(dimension, link == LINK_IDENTITY ? 1 : 0, ret);
}

/* Normals of which a sample takes its length, behind its components. */
enum { STUDENT_FREEDOM = 5 };

int64_t model_pitch(enum input_kind input, int64_t dimension)
{
    return input == INPUT_STUDENT_T ? dimension + STUDENT_FREEDOM : dimension;
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

void model_inputs(const struct kernels *kernels, struct rng_key key, int64_t dimension, enum input_kind input,
                  int64_t step, int64_t count, double *ret)
{
    static const enum kernels_law laws[INPUT_KIND_COUNT] = {[INPUT_LAPLACE] = KERNELS_LAPLACE,
                                                            [INPUT_UNIFORM] = KERNELS_UNIFORM,
                                                            [INPUT_RADEMACHER] = KERNELS_RADEMACHER};
    const int64_t pitch = model_pitch(input, dimension);
    rng_variates(kernels, laws[input], key, (uint64_t)step, count * pitch, ret);
    if (input != INPUT_SPHERE && input != INPUT_STUDENT_T)
        return;
    for (int64_t n = 0; n < count; ++n) {
        double *z = ret + n * pitch;
        const double scale = sample_scale(input, z, dimension);
        for (int64_t c = 0; c < dimension; ++c)
            z[c] *= scale;
    }
}
