/* kernels: what is done an element at a time, compiled once an instruction set and chosen at start-up.
 *
 * All are written for vectors of eight doubles in a fixed order, whatever the machine's own width, and
 * without contraction of a product and a sum: AVX-512 and AVX2 give the same bits. (Baseline x86-64 has no
 * fused multiply-add, which SLEEF's functions use inside; there the last bit of a normal or an arc tangent
 * may differ.)
 *
 * Bare by design: no checks, no allocation. Pointers are 64-byte aligned and lengths padded to eight where it
 * says "padded". */
#ifndef SGDMAP_KERNELS_H
#define SGDMAP_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

enum { KERNELS_LANES = 8 };

/* n rounded up to whole vectors. */
static inline int64_t kernels_padded(int64_t n)
{
    return (n + KERNELS_LANES - 1) / KERNELS_LANES * KERNELS_LANES;
}

/* One column of the pairs that the landscape sums over: see landscape.c for the formulas. All arrays are
 * [padded d], index i; the scalars belong to column j. */
struct kernels_pairs {
    int64_t dimension;
    const double *teacher_norm; /* ||b_i|| */
    const double
        *teacher_scale; /* 1 / ||b_i||, or NaN, which makes the pair a careful one; 1 in the padding */
    const double *student_scale;    /* 1 / ||a_i||, likewise */
    const double *norm_difference;  /* ||a_i|| - ||b_i|| */
    const double *one_minus_cosine; /* 1 - cos angle(a_i, b_i) */
    const double *teacher_gram;     /* <b_i, b_j> */
    const double *teacher_angle;    /* angle(b_i, b_j) */
    const double *teacher_cosine;
    const double *teacher_sine;
    const double *teacher_delta; /* <b_i, delta_j> */
    const double *delta_student; /* <delta_i, a_j> */
    double column_teacher_norm, column_teacher_scale;
    double column_student_norm, column_student_scale;
    double column_norm_difference;
    double column_one_minus_cosine;
    bool gradient_only;       /* correction_sum is not wanted, nor are the arguments that it alone needs */
    double *angle_complement; /* out: pi - angle(a_i, a_j) */
    double *angle_difference; /* out: angle(a_i, a_j) - angle(b_i, a_j) */
    double sine_sum;          /* out: sum_i ||a_i|| sin(a_i, a_j) - ||b_i|| sin(b_i, a_j) */
    double correction_sum;    /* out: sum_i of what <gradient, delta>/2 lacks to the loss, times 2 pi */
    int64_t *careful; /* out: [padded d + 1] the i with angles near 0 or pi or a zero column; left out of the
                         sums */
    int64_t careful_count;
};

/* A step of a block of students that stand side by side in the lanes of a vector, all given the same inputs. */
struct kernels_step {
    int64_t dimension, batch;
    int64_t stride;       /* of inputs: component i of sample n at inputs[i * stride + n] */
    const double *inputs; /* [d][stride] */
    const double *target; /* f*(x_n): [batch], or [batch][lanes] where the students' teachers differ */
    int64_t target_lanes; /* 1 or `lanes` */
    const double *factor; /* [lanes] -2 eta / B; 0 leaves a student where it is */
    double *students;     /* [d][d][lanes] A, neuron by neuron */
    double *workspace;    /* [kernels_step_workspace(d, lanes)] */
    double *squares;      /* out: [lanes] sum_n r_n^2 before the step */
};

/* The samples of a batch that are worked on at a time. */
enum { KERNELS_STEP_SAMPLES = 128 };

static inline int64_t kernels_step_workspace(int64_t dimension, int64_t lanes)
{
    return (KERNELS_STEP_SAMPLES * (dimension + 1) + dimension * dimension) * lanes;
}

struct kernels_fused {
    int64_t lanes; /* students a block, a power of two up to KERNELS_LANES */

    /* A <- A + factor sum_n x_n r_n 1[z_n > 0]', r_n = sum_j max(z_nj, 0) - target_n, z = X A. What a lane computes
     * depends on nothing in the others and not on the instruction set, if it has fused multiply-add. */
    void (*step)(const struct kernels_step *step);

    /* ret[n] = sum_j max(<x_n, column j>, 0), with the bits of a student of these columns. inputs [d][stride], padded
     * batch <= stride; columns [d][d]. */
    void (*output)(int64_t dimension, int64_t batch, int64_t stride, const double *inputs,
                   const double *columns, double *ret);

    /* ret[lane] = sum (A - B)^2, of one teacher's columns [d][d], or of the students' own [d][d][lanes]; with the same
     * bits. */
    void (*distances)(int64_t dimension, const double *teacher, const double *students, double *ret);
    void (*distances_from_own)(int64_t dimension, const double *teachers, const double *students,
                               double *ret);
};

/* The laws of independent entries, all of mean 0 and variance 1. */
enum kernels_law { KERNELS_NORMAL, KERNELS_LAPLACE, KERNELS_UNIFORM, KERNELS_RADEMACHER };

struct kernels {
    const char *name; /* "avx512", "avx2", "baseline" */
    const struct kernels_fused *fused;

    /* ret[i], i < 16 * chunk_count: the variates of Philox blocks 8 q … 8 q + 7 for q = first_chunk …; lane l
     * of chunk q gives elements l and 8 + l of the chunk's sixteen. Counter {block, 0, step low, step high}. With the
     * block's 64-bit words w and w', u = (w >> 12) / 2^52 and u' alike: a normal is Box and Muller's of 1 - u and u',
     * cosine and sine; of the others, l is of w and 8 + l of w': Laplace the exponential -ln(1 - u) / sqrt 2 with the
     * sign of w's lowest bit, uniform sqrt 3 (2 u - 1), Rademacher 1 with the sign of w's highest bit. */
    void (*variates)(enum kernels_law law, uint32_t key0, uint32_t key1, uint64_t step, int64_t first_chunk,
                     int64_t chunk_count, double *ret);

    /* For a student's pre-activations z [columns][stride], sample fastest, padded batch: residual[n] =
     * sum_j max(z_j[n], 0) - target[n], and z_j[n] becomes factor * residual[n] where it was > 0, else 0. */
    void (*gate)(int64_t batch, int64_t columns, int64_t stride, double factor, const double *target,
                 double *z, double *residual);

    /* ret[n] = sum_j max(z_j[n], 0), the network's output; padded batch. */
    void (*relu_sum)(int64_t batch, int64_t columns, int64_t stride, const double *z, double *ret);

    /* sum (a_i - b_i)^2, in the order of eight interleaved sums. */
    double (*squared_distance)(int64_t n, const double *a, const double *b);

    void (*pairs)(struct kernels_pairs *pairs);

    /* sum x_i y_i, in the order of eight interleaved sums. */
    double (*dot)(int64_t n, const double *x, const double *y);

    /* y += sum_j x_j a_j, and y_j = <a_j, x>, over `count` columns a_j of padded length n, `n` apart. */
    void (*combine)(int64_t n, int64_t count, const double *a, const double *x, double *y);
    void (*project)(int64_t n, int64_t count, const double *a, const double *x, double *y);

    /* y_j (+)= sum_k x_jk a_k for `columns` columns y_j of padded length n, `n` apart, and x_j, `stride` apart: a product of
     * small matrices, for which BLIS takes a microsecond to begin. */
    void (*multiply)(int64_t n, int64_t columns, int64_t count, const double *a, int64_t stride,
                     const double *x, bool add, double *y);
};

/* The widest that this CPU can run, or the one named (for tests): NULL if it is unknown or cannot run here.
 */
const struct kernels *kernels_select(const char *name);

#endif
