/* Compiled once an instruction set, like what it includes. */
#include "../../src/fused_isa.c"

#include "bench_parts.h"

/* The compiler is to take it for needed, and to leave it in its register. */
#if defined __AVX512F__
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#elif defined __x86_64__
#define KEEP(x) __asm__ volatile("" : "+x"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif

static double multiply_adds(void)
{
    enum { SUMS_UNDER_WAY = 12, ROUNDS = 100000 };
    const vector factor = splat(1.0000001), addend = splat(1e-9);
    vector a = factor, b = factor, c = factor, d = factor, e = factor, f = factor;
    vector g = factor, h = factor, i = factor, j = factor, k = factor, l = factor;
#define ADD(x)                                                                                               \
    x = multiply_add(x, factor, addend);                                                                     \
    KEEP(x)
    for (int round = 0; round < ROUNDS; ++round) {
        ADD(a);
        ADD(b);
        ADD(c);
        ADD(d);
        ADD(e);
        ADD(f);
        ADD(g);
        ADD(h);
        ADD(i);
        ADD(j);
        ADD(k);
        ADD(l);
    }
    return 2.0 * WIDTH * SUMS_UNDER_WAY * ROUNDS;
}

static void part(int which, int64_t d, int64_t batch, int64_t stride, const double *inputs,
                 const double *target, double *factor, double *students, double *work)
{
    double *outputs = work, *z = work + (stride + 8) * WIDTH, *sums = z + stride * d * WIDTH, ignored[WIDTH];
    vector squares = splat(0);
    struct gradient gradient = {.dimension = d,
                                .stride = stride,
                                .samples = batch,
                                .inputs = inputs,
                                .gated = z,
                                .sums = sums,
                                .students = students,
                                .factor = load(factor),
                                .first = true,
                                .last = true};
    switch (which) {
    case 0:
        forward(batch, d, stride, inputs, students, z, outputs);
        break;
    case 1:
        gate(batch, d, target, 1, outputs, z, &squares);
        break;
    case 2:
        add_gradient(&gradient);
        break;
    default:
        distances(d, students, students, ignored);
    }
}

#define STRING_(x) #x
#define STRING(x) STRING_(x)
const struct bench_isa CONCATENATE(bench_isa_, BENCH_ISA) = {
    .name = STRING(BENCH_ISA), .multiply_adds = multiply_adds, .part = part};
