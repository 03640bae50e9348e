/* landscape: the exact population loss, its gradient, and what the theory watches, in closed form.
 *
 * With theta(a,b) the angle between a and b, and k(a,b) = E[ReLU(a'x) ReLU(b'x)] = |a||b|/(2 pi) (sin theta +
 * (pi - theta) cos theta) (Cho & Saul 2009, the arc-cosine kernel of order 1),
 *
 *     L = sum_ij k(a_i,a_j) - 2 k(a_i,b_j) + k(b_i,b_j).
 *
 * Summed as it stands, L keeps an absolute error of some 1e-16 times its d^2 terms, so that nothing is left
 * of it near W*. Here nothing large is subtracted: everything is expressed in delta = A - B and in
 * differences of angles, which have stable forms (src/landscape.c derives them), and loss, gradient and
 * alignment keep their relative accuracy down to the last digit of A. */
#ifndef SGDMAP_LANDSCAPE_H
#define SGDMAP_LANDSCAPE_H

#include <stdint.h>

#include "sgdmap/error.h"
#include "sgdmap/kernels.h"

struct landscape; /* opaque: the tables of its teacher, and workspace */

struct diagnostics {
    double loss;           /* L, output^2 */
    double error;          /* ||A-B||_F / sqrt(d) */
    double potential;      /* g = sum_j ||b_j||^2 - ||a_j||^2 */
    double potential_norm; /* g_1 = sum_j ||b_j|| - ||a_j|| */
    double alignment;      /* <-grad L, B-A> / ||B-A||_F^2; NaN at A = B */
    double gradient_norm;  /* ||grad L||_F */
};

/* The teacher's columns [d][d] are copied. Errors: ERROR_MEMORY. */
WARN_UNUSED int landscape_new(const struct kernels *kernels, int64_t dimension, const double *teacher,
                              struct landscape **ret, struct error *err);
void landscape_free(struct landscape *landscape);

/* At the student's columns [d][d]. `gradient` [d][d], dL/dw_j in column j, may be NULL. A column of norm 0
 * contributes 0 and has gradient 0; one whose squared norm underflows counts as 0. Entries that are not
 * finite, or so large that their squares are not, give NaN. */
void landscape_measure(struct landscape *landscape, const double *student, struct diagnostics *ret,
                       double *gradient);

/* The gradient alone, in about half the time: ret [d][d]. Accurate as landscape_measure()'s, but next to a permutation of the
 * teacher's columns only to rounding of its summands. */
void landscape_gradient(struct landscape *landscape, const double *student, double *ret);

#endif
