/* The parts of the fused step, which src/fused_isa.c keeps to itself, for one instruction set. */
#ifndef SGDMAP_BENCH_PARTS_H
#define SGDMAP_BENCH_PARTS_H

#include <stdint.h>

struct bench_isa {
    const char *name;

    /* Works for a while in registers; returns the flop done. */
    double (*multiply_adds)(void);

    /* One part for one block: 0 Z, 1 the gate, 2 the gradient with the update, 3 the distances. work [(stride + 1) d + d d]
     * [lanes] or more. */
    void (*part)(int part, int64_t dimension, int64_t batch, int64_t stride, const double *inputs,
                 const double *target, double *factor, double *students, double *work);
};

extern const struct bench_isa bench_isa_baseline, bench_isa_avx2, bench_isa_avx512;

#endif
