/* linalg: products and the spectral norm. Matrices are column-major with an explicit leading dimension:
 * column j of a [rows][columns] matrix stands at a + j * lda. Sizes fit BLIS's dim_t. */
#ifndef SGDMAP_LINALG_H
#define SGDMAP_LINALG_H

#include <stdbool.h>
#include <stdint.h>

#include "sgdmap/error.h"
#include "sgdmap/kernels.h"

/* Before any other function here, once a process. Sets BLIS_ARCH_TYPE by what the CPU can do (BLIS 0.9 does
 * not know CPUs that came after it and falls back to unvectorized kernels) unless the user has set it. */
void linalg_setup(void);

const char *linalg_kernel_family(void); /* "skx", "haswell", …, "generic" */
bool linalg_is_generic(void);           /* the family in use is BLIS's unvectorized one */
const char *linalg_version(void);

enum linalg_transpose { LINALG_PLAIN, LINALG_TRANSPOSED };

/* c = op(a) b + beta c, beta 0 or 1. op(a) [m][k], b [k][n], c [m][n]. There is no alpha: with factors of
 * exactly one a product's rounding cannot depend on where in c an element stands because of scaling. */
void linalg_product(enum linalg_transpose transpose, int64_t m, int64_t n, int64_t k, const double *a,
                    int64_t lda, const double *b, int64_t ldb, double beta, double *c, int64_t ldc);

/* The largest singular value of a [dimension][dimension], by Lanczos on a'a with full reorthogonalization
 * until the residual is below 1e-10 of it; relative error at most 1e-10, in practice its square over the gap
 * (near 1e-16). 0 for 0, NaN if an entry is not finite. workspace [linalg_spectral_workspace(dimension)]. */
double linalg_spectral_norm(const struct kernels *kernels, int64_t dimension, const double *a, int64_t lda,
                            double *workspace);
int64_t linalg_spectral_workspace(int64_t dimension);

/* The columns of a [dimension][dimension] become orthonormal, by Gram and Schmidt's method: the factor Q of a = Q R with R's
 * diagonal positive, to rounding; NaN if they are linearly dependent. workspace [linalg_spectral_workspace(dimension)]. */
void linalg_orthonormalize(const struct kernels *kernels, int64_t dimension, double *a, int64_t lda,
                           double *workspace);

/* Zeroed memory aligned for vectors; NULL if there is none or the size overflows. Free with free(). */
double *linalg_new(int64_t count);

#endif
