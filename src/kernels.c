#include "sgdmap/kernels.h"

#include <string.h>

extern const struct kernels kernels_baseline;
#if defined __x86_64__
extern const struct kernels kernels_avx2, kernels_avx512;
#endif

const struct kernels *kernels_select(const char *name)
{
#if defined __x86_64__
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    if (avx512 && (name == NULL || strcmp(name, kernels_avx512.name) == 0))
        return &kernels_avx512;
    if (avx2 && (name == NULL || strcmp(name, kernels_avx2.name) == 0))
        return &kernels_avx2;
#endif
    if (name == NULL || strcmp(name, kernels_baseline.name) == 0)
        return &kernels_baseline;
    return NULL;
}
