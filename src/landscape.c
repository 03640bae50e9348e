/* The stable forms.
 *
 * Write delta_i = a_i - b_i, g(c,y) = dk(c,y)/dy = (|c| sin theta(c,y) y^ + (pi - theta(c,y)) c) / (2 pi), so
 * that k(c,y) = <g(c,y), y> and dL/da_j = 2 sum_i g(a_i,a_j) - g(b_i,a_j).
 *
 * Gradient. In the difference g(a_i,a_j) - g(b_i,a_j) nothing cancels once it is written as
 *     2 pi (...) = (pi - theta(a_i,a_j)) delta_i - E_ij b_i + S_ij a^_j,
 *     E_ij = theta(a_i,a_j) - theta(b_i,a_j),
 *     S_ij = |a_i| sin(a_i,a_j) - |b_i| sin(b_i,a_j)
 *          = (|a_i| - |b_i|) sin(a_i,a_j) + |b_i| (sin(a_i,a_j) - sin(b_i,a_j)).
 * A difference of angles comes from the difference of their cosines c1 - c2 without loss:
 *     tan((theta1 - theta2)/2) = -(c1 - c2) / (sin theta1 + sin theta2),
 * and that of the sines is tan(.../2) (c1 + c2). The difference of the cosines comes from products with
 * delta: cos(a_i,a_j) - cos(b_i,a_j) = (<delta_i,a_j> - <b_i,a_j> (|a_i| - |b_i|)/|b_i|) / (|a_i||a_j|).
 *
 * Loss. By homogeneity L = sum_j <u_j, delta_j> + <u_j - v_j, b_j> with u_j = sum_i g(a_i,a_j) - g(b_i,a_j),
 * half the gradient, and v_j = sum_i g(a_i,b_j) - g(b_i,b_j). So L = <grad L, delta>/2 + sum_ij q_j(a_i) -
 * q_j(b_i),   q_j(c) = <g(c,a_j) - g(c,b_j), b_j> = |c||b_j|/(2 pi) [cos(c,b_j) (sin D - D) - sin(c,b_j) (1 -
 * cos D) - sin(c,a_j) (1 - cos(a_j,b_j))], D = theta(c,a_j) - theta(c,b_j). Each q is of second order in
 * delta with a relative error, and there is nothing left to cancel but q_j(a_i) against q_j(b_i), both of the
 * order of L itself. kernels->pairs does this for a column j, with the pair (i,j) giving E_ij, S_ij, q_j(b_i)
 * and, by symmetry of the angles, q_i(a_j).
 *
 * Angles near 0 or pi have sines that the cosine does not determine; those pairs, the diagonal and columns of
 * norm 0 are done by careful_pair() from the vectors themselves. */
#include "sgdmap/landscape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/linalg.h"

static const double PI = 0x1.921fb54442d18p1;

struct landscape {
    const struct kernels *kernels;
    int64_t dimension;
    int64_t stride; /* padded dimension: the distance of columns in the tables and products below */
    double *teacher, *teacher_rows; /* B and B' [d][stride] */
    double *student;                /* A [d][stride] */
    /* Of the teacher, [d][stride] */
    double *teacher_gram, *teacher_angle, *teacher_cosine, *teacher_sine;
    /* Of a measurement, [d][stride] */
    double *delta, *delta_rows, *teacher_delta, *delta_student, *complement, *difference, *gradient;
    /* [stride] */
    double *teacher_norm, *student_norm, *norm_difference, *own_angle, *one_minus_cosine;
    double *teacher_scale, *student_scale; /* 1 / norm; NaN for columns that want care, 1 in the padding */
    int64_t *careful;
    int64_t *order;   /* [d] of the student's columns, for evaluate_permuted */
    double *permuted; /* [d][d] */
    /* [stride] of a step: a column of delta's part perpendicular to the teacher's; and the sines of own_angle, NaN where it was
     * taken from the vectors. */
    double *perpendicular, *own_sine;
};

/* The angle of x and y, accurate to a few units in the last place also near 0 and pi (Kahan 2006, "How futile
 * are mindless assessments of roundoff", section 12). pi/2 if one is zero: such a pair has weight 0. */
static double angle(int64_t n, const double *x, double x_norm, const double *y, double y_norm)
{
    if (x_norm == 0 || y_norm == 0)
        return PI / 2;
    double minus = 0, plus = 0;
    for (int64_t i = 0; i < n; ++i) {
        double u = x[i] / x_norm, v = y[i] / y_norm;
        minus += (u - v) * (u - v);
        plus += (u + v) * (u + v);
    }
    return 2 * atan2(sqrt(minus), sqrt(plus));
}

/* The angle between a = b + delta and b, with a relative error of rounding however small delta is: the part
 * of delta that is perpendicular to b is that of a. */
static double own_angle(const struct kernels *kernels, int64_t n, int64_t stride, const double *b,
                        double b_norm, const double *delta, const double *a, double a_norm)
{
    if (kernels->dot(stride, delta, delta) >= 0.01 * b_norm * b_norm)
        return angle(n, a, a_norm, b, b_norm);
    double along = kernels->dot(stride, b, delta) / (b_norm * b_norm), perpendicular = 0;
    for (int64_t i = 0; i < n; ++i) {
        double p = delta[i] - along * b[i];
        perpendicular += p * p;
    }
    return atan2(sqrt(perpendicular) * b_norm, kernels->dot(stride, a, b));
}

/* sin x - x without cancellation */
static double sine_minus_angle(double x)
{
    if (fabs(x) > 1)
        return sin(x) - x;
    double x2 = x * x, term = -x * x2 / 6, sum = term;
    for (int k = 4; fabs(term) > 0x1p-60 * fabs(sum); k += 2) {
        term *= -x2 / (k * (k + 1));
        sum += term;
    }
    return sum;
}

/* 2 pi k(x,y) / (|x||y|) = sin theta + (pi - theta) cos theta; near pi, with f = pi - theta, sin f - f cos f
 * in the form (sin f - f) + f (1 - cos f). */
static double arc_cosine(double theta)
{
    double f = PI - theta, half = sin(f / 2);
    return f < 1 ? sine_minus_angle(f) + 2 * f * half * half : sin(theta) + f * cos(theta);
}

/* 2 pi q_y(c) / (|c||b|) of the comment above, from the angles of c with a and with b, their difference, and
 * the angle of a with b. */
static double correction(double with_a, double with_b, double difference, double a_with_b)
{
    double half = sin(difference / 2), own = sin(a_with_b / 2);
    return cos(with_b) * sine_minus_angle(difference) - 2 * sin(with_b) * half * half -
           2 * sin(with_a) * own * own;
}

/* Up to this dimension BLIS's overhead outweighs its blocking. */
enum { SMALL_DIMENSION = 64 };

/* ret = a' x, where `rows` is a' too; x [d][x_stride], the others [d][stride]. */
static void product_of_transposed(const struct landscape *l, const double *a, const double *rows,
                                  const double *x, int64_t x_stride, double *ret)
{
    const int64_t d = l->dimension, stride = l->stride;
    if (d <= SMALL_DIMENSION)
        l->kernels->multiply(stride, d, d, rows, x_stride, x, false, ret);
    else
        linalg_product(LINALG_TRANSPOSED, d, d, d, a, stride, x, x_stride, 0, ret, stride);
}

/* ret += a x; all [d][stride] */
static void add_product(const struct landscape *l, const double *a, const double *x, double *ret)
{
    const int64_t d = l->dimension, stride = l->stride;
    if (d <= SMALL_DIMENSION)
        l->kernels->multiply(stride, d, d, a, stride, x, true, ret);
    else
        linalg_product(LINALG_PLAIN, d, d, d, a, stride, x, stride, 1, ret, stride);
}

/* Every array of the object in one place: how many vectors of `stride` each has. */
static int allocate(struct landscape *l, struct error *err)
{
    const int64_t d = l->dimension;
    double **matrices[] = {&l->teacher_gram, &l->teacher_angle, &l->teacher_cosine, &l->teacher_sine,
                           &l->delta,        &l->teacher_delta, &l->delta_student,  &l->complement,
                           &l->difference,   &l->gradient,      &l->teacher,        &l->permuted,
                           &l->teacher_rows, &l->delta_rows,    &l->student};
    double **vectors[] = {&l->teacher_norm,  &l->student_norm,     &l->norm_difference,
                          &l->own_angle,     &l->one_minus_cosine, &l->teacher_scale,
                          &l->student_scale, &l->perpendicular,    &l->own_sine};
    bool ok = true;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; ++i)
        ok = (*matrices[i] = linalg_new(d * l->stride)) != NULL && ok;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; ++i)
        ok = (*vectors[i] = linalg_new(l->stride)) != NULL && ok;
    l->careful = calloc((size_t)l->stride + 1, sizeof *l->careful);
    l->order = calloc((size_t)d, sizeof *l->order);
    if (!ok || l->careful == NULL || l->order == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for the diagnostics at dimension %lld",
                         (long long)d);
    return 0;
}

int landscape_new(const struct kernels *kernels, int64_t dimension, const double *teacher,
                  struct landscape **ret, struct error *err)
{
    struct landscape *l = calloc(1, sizeof *l);
    if (l == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for the diagnostics at dimension %lld",
                         (long long)dimension);
    const int64_t d = dimension, stride = kernels_padded(d);
    l->kernels = kernels;
    l->dimension = d;
    l->stride = stride;
    int code = allocate(l, err);
    if (code != 0) {
        landscape_free(l);
        return code;
    }
    for (int64_t j = 0; j < d; ++j)
        for (int64_t i = 0; i < d; ++i)
            l->teacher[j * stride + i] = l->teacher_rows[i * stride + j] = teacher[j * d + i];
    for (int64_t i = 0; i < stride; ++i)
        l->teacher_scale[i] = l->student_scale[i] = 1;
    for (int64_t j = 0; j < d; ++j) {
        l->teacher_norm[j] = sqrt(kernels->dot(d, teacher + j * d, teacher + j * d));
        l->teacher_scale[j] = l->teacher_norm[j] > 0 ? 1 / l->teacher_norm[j] : NAN;
    }
    product_of_transposed(l, l->teacher, l->teacher_rows, l->teacher, stride, l->teacher_gram);
    for (int64_t j = 0; j < d; ++j)
        for (int64_t i = 0; i <= j; ++i) {
            const int64_t at = i + j * stride, mirrored = j + i * stride;
            const double cosine = l->teacher_gram[at] / (l->teacher_norm[i] * l->teacher_norm[j]);
            double theta = 0;
            if (i != j) /* a norm of 0 makes the cosine NaN */
                theta = fabs(cosine) < 0.9 ? acos(cosine)
                                           : angle(d, teacher + i * d, l->teacher_norm[i], teacher + j * d,
                                                   l->teacher_norm[j]);
            l->teacher_angle[at] = l->teacher_angle[mirrored] = theta;
            l->teacher_cosine[at] = l->teacher_cosine[mirrored] = cos(theta);
            l->teacher_sine[at] = l->teacher_sine[mirrored] = sin(theta);
        }
    *ret = l;
    return 0;
}

void landscape_free(struct landscape *l)
{
    if (l == NULL)
        return;
    double *arrays[] = {l->student,         l->teacher,       l->teacher_rows,     l->delta_rows,
                        l->teacher_gram,    l->teacher_angle, l->teacher_cosine,   l->teacher_sine,
                        l->delta,           l->teacher_delta, l->delta_student,    l->complement,
                        l->difference,      l->gradient,      l->teacher_norm,     l->student_norm,
                        l->norm_difference, l->own_angle,     l->one_minus_cosine, l->teacher_scale,
                        l->student_scale,   l->perpendicular, l->own_sine};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; ++i)
        free(arrays[i]);
    free(l->permuted);
    free(l->order);
    free(l->careful);
    free(l);
}

/* The pair (i,j) from its vectors: what kernels->pairs leaves out. Adds to the column's sums. */
static void careful_pair(struct landscape *l, const double *student, int64_t i, int64_t j,
                         struct kernels_pairs *sums)
{
    const int64_t d = l->dimension;
    const double *ai = student + i * d, *aj = student + j * d, *bi = l->teacher + i * l->stride;
    const double norm_ai = l->student_norm[i], norm_aj = l->student_norm[j];
    const double norm_bi = l->teacher_norm[i], norm_bj = l->teacher_norm[j];
    const int64_t at = i + j * l->stride;

    if (i == j && !isnan(l->own_sine[j])) {
        l->complement[at] = PI;
        l->difference[at] = -l->own_angle[j];
        sums->sine_sum -= norm_bj * l->own_sine[j];
        return;
    }
    double bb = l->teacher_angle[at], ba, aa, e1, e2;
    if (i == j) {
        ba = l->own_angle[j];
        aa = 0;
        e1 = -ba;
        e2 = ba;
    } else {
        ba = angle(d, bi, norm_bi, aj, norm_aj);
        aa = angle(d, ai, norm_ai, aj, norm_aj);
        e1 = aa - ba;
        e2 = ba - bb;
    }
    if (norm_aj == 0) { /* gradient 0 by convention, and q_j(c) = -k(c,b_j) */
        l->complement[at] = l->difference[at] = 0;
        if (!sums->gradient_only)
            sums->correction_sum += norm_bi * norm_bj * arc_cosine(bb);
        return;
    }
    l->complement[at] = PI - aa;
    l->difference[at] = e1;
    sums->sine_sum += norm_ai > 0 && norm_bi > 0
                          ? l->norm_difference[i] * sin(aa) + 2 * norm_bi * cos((aa + ba) / 2) * sin(e1 / 2)
                          : norm_ai * sin(aa) - norm_bi * sin(ba);
    if (sums->gradient_only)
        return;
    double of_student = norm_ai > 0 ? correction(aa, ba, e1, l->own_angle[i]) : -arc_cosine(ba);
    sums->correction_sum += norm_bi * norm_aj * of_student;
    sums->correction_sum -= norm_bi * norm_bj * correction(ba, bb, e2, l->own_angle[j]);
}

/* Sums over the columns. */
struct sums {
    double delta_squares, potential, potential_norm;
};

/* Column j of the student: its difference from the teacher's, its norm and their angle. */
static void look_at_column(struct landscape *l, const double *student, int64_t j, bool gradient_only,
                           struct sums *sums)
{
    const struct kernels *kernels = l->kernels;
    const int64_t d = l->dimension, stride = l->stride;
    const double *b = l->teacher + j * stride;
    const double b_norm = l->teacher_norm[j];
    double *delta = l->delta + j * stride, *a = l->student + j * stride;
    memcpy(a, student + j * d, (size_t)d * sizeof *a);
    for (int64_t i = 0; i < d; ++i)
        delta[i] = a[i] - b[i];
    const double delta_delta = kernels->dot(stride, delta, delta), b_delta = kernels->dot(stride, b, delta);
    const double gain = 2 * b_delta + delta_delta; /* ||a||^2 - ||b||^2 */
    const double a_norm = sqrt(kernels->dot(stride, a, a)), norms = a_norm + b_norm;
    l->student_norm[j] = a_norm;
    /* Of a student that is small beside its teacher little is left in delta = a - b. */
    l->student_scale[j] = a_norm > 1e-3 * b_norm ? 1 / a_norm : NAN;
    l->norm_difference[j] = norms > 0 ? gain / norms : 0;
    sums->delta_squares += delta_delta;
    sums->potential -= gain;
    sums->potential_norm -= l->norm_difference[j];
    if (gradient_only && a_norm > 1e-3 * b_norm && b_norm > 0) {
        /* The perpendicular part, as in own_angle(), by vectors. */
        const double along = -b_delta / (b_norm * b_norm);
        memcpy(l->perpendicular, delta, (size_t)stride * sizeof *delta);
        kernels->combine(stride, 1, b, &along, l->perpendicular);
        const double squares = kernels->dot(stride, l->perpendicular, l->perpendicular);
        l->own_angle[j] = atan2(sqrt(squares) * b_norm, b_norm * b_norm + b_delta);
        l->own_sine[j] = sqrt(squares) / a_norm;
        return;
    }
    l->own_sine[j] = NAN;
    l->own_angle[j] = own_angle(kernels, d, stride, b, b_norm, delta, a, a_norm);
    const double half = sin(l->own_angle[j] / 2);
    l->one_minus_cosine[j] = 2 * half * half;
}

/* pi times column j of the gradient, but for the products of delta and the teacher with the angles, which stay in
 * l->complement and l->difference. Returns what the pairs lack to the loss. */
static double look_at_pairs(struct landscape *l, const double *student, int64_t j, bool gradient_only)
{
    const int64_t d = l->dimension, at = j * l->stride;
    struct kernels_pairs pairs = {
        .dimension = d,
        .teacher_norm = l->teacher_norm,
        .teacher_scale = l->teacher_scale,
        .student_scale = l->student_scale,
        .norm_difference = l->norm_difference,
        .one_minus_cosine = l->one_minus_cosine,
        .teacher_gram = l->teacher_gram + at,
        .teacher_angle = l->teacher_angle + at,
        .teacher_cosine = l->teacher_cosine + at,
        .teacher_sine = l->teacher_sine + at,
        .teacher_delta = l->teacher_delta + at,
        .delta_student = l->delta_student + at,
        .column_teacher_norm = l->teacher_norm[j],
        .column_teacher_scale = l->teacher_scale[j],
        .column_student_norm = l->student_norm[j],
        .column_student_scale = l->student_scale[j],
        .column_norm_difference = l->norm_difference[j],
        .column_one_minus_cosine = l->one_minus_cosine[j],
        .gradient_only = gradient_only,
        .angle_complement = l->complement + at,
        .angle_difference = l->difference + at,
        .careful = l->careful,
    };
    l->kernels->pairs(&pairs);
    for (int64_t n = 0; n < pairs.careful_count; ++n)
        careful_pair(l, student, l->careful[n], j, &pairs);
    /* The term along a^_j; products add the others. */
    const double along = l->student_norm[j] > 0 ? pairs.sine_sum / l->student_norm[j] : 0;
    for (int64_t i = 0; i < d; ++i) {
        l->gradient[at + i] = along * student[j * d + i];
        l->difference[at + i] = -l->difference[at + i];
    }
    return pairs.correction_sum;
}

/* pi times the gradient, into l->gradient, from finite columns that have been looked at; returns what the pairs lack to the
 * loss. */
static double add_gradient(struct landscape *l, const double *student, bool gradient_only)
{
    const int64_t d = l->dimension, stride = l->stride;
    for (int64_t j = 0; d <= SMALL_DIMENSION && j < d; ++j)
        for (int64_t i = 0; i < d; ++i)
            l->delta_rows[i * stride + j] = l->delta[j * stride + i];
    product_of_transposed(l, l->teacher, l->teacher_rows, l->delta, stride, l->teacher_delta);
    product_of_transposed(l, l->delta, l->delta_rows, student, d, l->delta_student);
    double correction_sum = 0;
    for (int64_t j = 0; j < d; ++j)
        correction_sum += look_at_pairs(l, student, j, gradient_only);
    add_product(l, l->delta, l->complement, l->gradient);
    add_product(l, l->teacher, l->difference, l->gradient);
    return correction_sum;
}

/* Everything at `student`; the gradient stays in l->gradient. */
static void evaluate(struct landscape *l, const double *student, struct diagnostics *ret)
{
    const int64_t d = l->dimension, stride = l->stride;
    struct sums sums = {0};
    for (int64_t j = 0; j < d; ++j)
        look_at_column(l, student, j, false, &sums);
    ret->error = sqrt(sums.delta_squares / (double)d);
    ret->potential = sums.potential;
    ret->potential_norm = sums.potential_norm;
    if (!isfinite(sums.delta_squares)) {
        ret->loss = ret->alignment = ret->gradient_norm = NAN;
        for (int64_t at = 0; at < d * stride; ++at)
            l->gradient[at] = NAN;
        return;
    }

    const double correction_sum = add_gradient(l, student, false);
    double squares = 0, along_delta = 0;
    for (int64_t j = 0; j < d; ++j) {
        for (int64_t i = 0; i < d; ++i)
            l->gradient[j * stride + i] *= 1 / PI;
        squares += l->kernels->dot(stride, l->gradient + j * stride, l->gradient + j * stride);
        along_delta += l->kernels->dot(stride, l->gradient + j * stride, l->delta + j * stride);
    }
    ret->loss = along_delta / 2 + correction_sum / (2 * PI);
    ret->alignment = sums.delta_squares > 0 ? along_delta / sums.delta_squares : NAN;
    ret->gradient_norm = sqrt(squares);
}

/* Which teacher column each student column is nearest to: ret [d]; false unless that is a permutation, and not the
 * identity. After evaluate(). */
static bool nearest_columns(const struct landscape *l, int64_t *ret)
{
    const int64_t d = l->dimension;
    bool moved = false;
    memset(l->careful, 0, (size_t)d * sizeof *l->careful); /* here: is the teacher's column taken? */
    for (int64_t j = 0; j < d; ++j) {
        double least = INFINITY;
        for (int64_t i = 0; i < d; ++i) {
            const int64_t at = i + j * l->stride;
            const double product = l->teacher_gram[at] + l->teacher_delta[at];
            const double distance = l->teacher_norm[i] * l->teacher_norm[i] - 2 * product;
            if (distance < least) {
                least = distance;
                ret[j] = i;
            }
        }
        if (!(least < INFINITY) || l->careful[ret[j]]++ > 0)
            return false;
        moved = moved || ret[j] != j;
    }
    return moved;
}

/* The network does not see the order of its neurons, so the loss has as many zeros as there are permutations. Near one of the
 * others the student is evaluated with its columns put into the teacher's order, where nothing cancels. */
static void evaluate_permuted(struct landscape *l, const double *student, struct diagnostics *ret)
{
    const int64_t d = l->dimension, stride = l->stride;
    if (!nearest_columns(l, l->order))
        return;
    for (int64_t j = 0; j < d; ++j)
        memcpy(l->permuted + l->order[j] * d, student + j * d, (size_t)d * sizeof *student);
    struct diagnostics permuted;
    evaluate(l, l->permuted, &permuted);
    ret->loss = permuted.loss;
    ret->gradient_norm = permuted.gradient_norm;
    double along_delta = 0, delta_squares = 0;
    for (int64_t j = 0; j < d; ++j) {
        memcpy(l->permuted + j * d, l->gradient + l->order[j] * stride, (size_t)d * sizeof *student);
        for (int64_t i = 0; i < d; ++i) {
            const double delta = student[j * d + i] - l->teacher[j * stride + i];
            along_delta += l->permuted[j * d + i] * delta;
            delta_squares += delta * delta;
        }
    }
    for (int64_t j = 0; j < d; ++j)
        memcpy(l->gradient + j * stride, l->permuted + j * d, (size_t)d * sizeof *student);
    ret->alignment = along_delta / delta_squares;
}

void landscape_measure(struct landscape *l, const double *student, struct diagnostics *ret, double *gradient)
{
    const int64_t d = l->dimension;
    evaluate(l, student, ret);
    /* A loss far below the squared distance, of whose order the summands are, has lost digits. */
    if (ret->loss < 1e-3 * ret->error * ret->error)
        evaluate_permuted(l, student, ret);
    if (ret->loss < 0) /* rounding; the loss is a mean of squares */
        ret->loss = 0;
    for (int64_t j = 0; gradient != NULL && j < d; ++j)
        memcpy(gradient + j * d, l->gradient + j * l->stride, (size_t)d * sizeof *gradient);
}

void landscape_gradient(struct landscape *l, const double *student, double *ret)
{
    const int64_t d = l->dimension;
    struct sums sums = {0};
    for (int64_t j = 0; j < d; ++j)
        look_at_column(l, student, j, true, &sums);
    const bool finite = isfinite(sums.delta_squares);
    if (finite)
        add_gradient(l, student, true);
    for (int64_t j = 0; j < d; ++j)
        for (int64_t i = 0; i < d; ++i)
            ret[j * d + i] = finite ? 1 / PI * l->gradient[j * l->stride + i] : NAN;
}
