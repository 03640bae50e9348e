#include "sgdmap/rng.h"

#include <Random123/philox.h>

enum { CHUNK = 2 * KERNELS_LANES };

struct rng_key rng_key(uint64_t seed, int64_t replicate, int64_t dimension, enum rng_purpose purpose)
{
    philox4x32_ctr_t counter = {
        {(uint32_t)purpose, (uint32_t)dimension, (uint32_t)replicate, (uint32_t)((uint64_t)replicate >> 32)}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t words = philox4x32(counter, key);
    return (struct rng_key){{words.v[0], words.v[1]}};
}

int64_t rng_padded(int64_t count)
{
    return (count + CHUNK - 1) / CHUNK * CHUNK;
}

void rng_normals(const struct kernels *kernels, struct rng_key key, uint64_t step, int64_t count, double *ret)
{
    rng_variates(kernels, KERNELS_NORMAL, key, step, count, ret);
}

void rng_variates(const struct kernels *kernels, enum kernels_law law, struct rng_key key, uint64_t step,
                  int64_t count, double *ret)
{
    kernels->variates(law, key.word[0], key.word[1], step, 0, rng_padded(count) / CHUNK, ret);
}
