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

void rng_permutation(struct rng_key key, uint64_t step, int64_t count, uint32_t *ret)
{
    __extension__ typedef unsigned __int128 product;
    const philox4x32_key_t words_key = {{key.word[0], key.word[1]}};
    uint64_t words[2] = {0};
    for (int64_t i = 0; i < count; ++i)
        ret[i] = (uint32_t)i;
    for (int64_t drawn = 0, rest = count; rest > 1; ++drawn, --rest) {
        if (drawn % 2 == 0) {
            const philox4x32_ctr_t counter = {
                {(uint32_t)(drawn / 2), 0, (uint32_t)step, (uint32_t)(step >> 32)}};
            const philox4x32_ctr_t four = philox4x32(counter, words_key);
            words[0] = four.v[0] | (uint64_t)four.v[1] << 32;
            words[1] = four.v[2] | (uint64_t)four.v[3] << 32;
        }
        const int64_t picked = (int64_t)((product)words[drawn % 2] * (uint64_t)rest >> 64);
        const uint32_t last = ret[rest - 1];
        ret[rest - 1] = ret[picked];
        ret[picked] = last;
    }
}
