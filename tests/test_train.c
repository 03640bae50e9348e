/* Training without its references: what must not change a bit. tests/test_golden.py has it against NumPy and PyTorch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sgdmap/linalg.h"
#include "sgdmap/train.h"

enum { RUNS = 90, RECORDS = 9, STEPS = 100 };

static int64_t steps_of_records[RECORDS];
static struct train_run runs[RUNS];

/* How a group is trained. */
static const struct layout {
    bool in_lanes, population;
    int64_t data; /* more than a batch; 0: fresh samples */
    int64_t test;
} layouts[] = {{.in_lanes = true},
               {.in_lanes = false},
               {.in_lanes = true, .data = 37, .test = 300},
               {.in_lanes = false, .data = 37, .test = 300},
               {.population = true, .test = 20}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static int setup(void **state)
{
    (void)state;
    linalg_setup();
    record_steps(STEPS, RECORDS, steps_of_records);
    for (int r = 0; r < RUNS; ++r) /* from nothing happens over converges to explodes */
        runs[r] = (struct train_run){.step_size = pow(10, -4 + 5.0 * r / RUNS),
                                     .init_scale = r % 3 * 0.2,
                                     .teacher_norm = r % 2 == 0 ? 0.1 : 0.4,
                                     .link = r % 5 == 0 ? LINK_NONE : LINK_IDENTITY,
                                     .teacher = (enum teacher_kind)(r / 3 % 4 == 0 ? r / 12 % 4 : 0),
                                     .noise = r % 7 == 0 ? 0.01 * (1 + r / 7 % 2) : 0,
                                     .schedule = (enum schedule_kind)(r / 2 % 3)};
    return 0;
}

static struct trainer *begin(const char *kernels, int64_t dimension, int64_t batch,
                             const struct layout *layout, const struct train_run *list, int64_t count)
{
    const struct train_group group = {.dimension = dimension,
                                      .batch_size = layout->population ? 0 : batch,
                                      .gradient =
                                          layout->population ? GRADIENT_POPULATION : GRADIENT_MINIBATCH,
                                      .data = layout->data > 0 ? batch + layout->data : 0,
                                      .input = INPUT_GAUSSIAN,
                                      .in_lanes = layout->in_lanes,
                                      .seed = 7,
                                      .replicate = 2,
                                      .steps = STEPS,
                                      .tolerance = 0.05,
                                      .test_samples = layout->test,
                                      .teacher_rank = 1,
                                      .decay = 20,
                                      .record_count = RECORDS,
                                      .record_steps = steps_of_records,
                                      .fields = (1u << (RECORD_TEST_LOSS + (layout->test > 0))) - 1,
                                      .run_count = count,
                                      .runs = list};
    struct trainer *trainer;
    assert_int_equal(trainer_new(kernels_select(kernels), &group, &trainer, NULL), 0);
    return trainer;
}

static void finish(struct trainer *trainer, int64_t count, double slice)
{
    struct trainer_progress before = trainer_progress(trainer), now;
    while (!trainer_advance(trainer, slice)) {
        now = trainer_progress(trainer);
        assert_true(now.done >= before.done && now.saved >= before.saved && now.done + now.saved < 1 + 1e-12);
        before = now;
    }
    now = trainer_progress(trainer);
    assert_true(fabs(now.done + now.saved - 1) < 1e-12);
    bool early = false;
    for (int64_t r = 0; r < count; ++r)
        early = early || trainer_results(trainer)[r].steps_done < STEPS;
    assert_true(early == (now.saved > 0));
}

static struct trainer *train(int64_t dimension, int64_t batch, const struct layout *layout,
                             const struct train_run *list, int64_t count, double slice)
{
    struct trainer *trainer = begin(NULL, dimension, batch, layout, list, count);
    finish(trainer, count, slice);
    return trainer;
}

static void assert_same_run(const struct trainer *a, int64_t in_a, const struct trainer *b, int64_t in_b,
                            int64_t d)
{
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        if (trainer_field(a, (enum record_field)f) != NULL)
            assert_memory_equal(trainer_field(a, (enum record_field)f) + in_a * RECORDS,
                                trainer_field(b, (enum record_field)f) + in_b * RECORDS,
                                RECORDS * sizeof(double));
    const struct run_result *x = &trainer_results(a)[in_a], *y = &trainer_results(b)[in_b];
    assert_int_equal(x->outcome, y->outcome);
    assert_int_equal(x->steps_done, y->steps_done);
    assert_int_equal(x->converged_step, y->converged_step);
    assert_int_equal(x->phase2_step, y->phase2_step);
    assert_memory_equal(&x->final_error, &y->final_error, sizeof x->final_error);
    assert_memory_equal(&x->final_loss, &y->final_loss, sizeof x->final_loss);
    double *weights = calloc((size_t)(2 * d * d), sizeof *weights);
    trainer_student(a, in_a, weights);
    trainer_student(b, in_b, weights + d * d);
    assert_memory_equal(weights, weights + d * d, (size_t)(d * d) * sizeof *weights);
    trainer_teacher(a, in_a, weights);
    trainer_teacher(b, in_b, weights + d * d);
    assert_memory_equal(weights, weights + d * d, (size_t)(d * d) * sizeof *weights);
    free(weights);
}

static void a_run_does_not_see_its_neighbours(void **state)
{
    (void)state;
    const int64_t shapes[][3] = {{1, 3, 90},   {6, 1, 80},    {10, 16, 90},
                                 {33, 20, 30}, {12, 300, 20}, {150, 9, 5}};
    for (size_t shape = 0; shape < LAYOUTS * sizeof shapes / sizeof *shapes; ++shape) {
        const struct layout *layout = &layouts[shape % LAYOUTS];
        const int64_t d = shapes[shape / LAYOUTS][0], batch = shapes[shape / LAYOUTS][1],
                      count = shapes[shape / LAYOUTS][2];
        struct train_run group[RUNS];
        for (int64_t r = 0; r < count; ++r)
            group[r] = runs[r * RUNS / count];
        struct trainer *whole = train(d, batch, layout, group, count, 1e9);
        bool seen[OUTCOME_COUNT] = {false};
        for (int64_t r = 0; r < count; ++r)
            seen[trainer_results(whole)[r].outcome] = true;
        assert_true(seen[OUTCOME_CONVERGED] + seen[OUTCOME_DIVERGED] + seen[OUTCOME_STALLED] > 1);
        for (int64_t r = 0; r < count; r += count / 4) {
            struct trainer *alone = train(d, batch, layout, &group[r], 1, 0);
            assert_same_run(whole, r, alone, 0, d);
            trainer_free(alone);
        }
        /* Every third, from the back: other neighbours, another order. */
        struct train_run some[RUNS];
        int64_t chosen = 0;
        for (int64_t r = count - 1; r >= 0; r -= 3)
            some[chosen++] = group[r];
        struct trainer *part = train(d, batch, layout, some, chosen, 1e-5);
        for (int64_t i = 0; i < chosen; ++i)
            assert_same_run(whole, count - 1 - 3 * i, part, i, d);
        trainer_free(part);
        trainer_free(whole);
    }
}

static void *save(const struct trainer *trainer, int64_t *size)
{
    *size = trainer_saved_size(trainer);
    void *ret = malloc((size_t)*size);
    trainer_save(trainer, ret);
    return ret;
}

/* Saved between any two calls, of which each trains a block of a tile, and restored into vectors of another width, into all of
 * the group or into some of it in another order. */
static void a_saved_trainer_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    const char *const widths[] = {"avx512", "avx2"};
    const bool wide = kernels_select("avx512") != NULL && kernels_select("avx2") != NULL;
    const int64_t shapes[][3] = {{6, 1, 80}, {10, 16, 90}, {33, 20, 30}, {12, 300, 20}};
    for (size_t shape = 0; shape < LAYOUTS * sizeof shapes / sizeof *shapes; ++shape) {
        const struct layout *layout = &layouts[shape % LAYOUTS];
        const int64_t d = shapes[shape / LAYOUTS][0], batch = shapes[shape / LAYOUTS][1],
                      count = shapes[shape / LAYOUTS][2];
        struct train_run group[RUNS], some[RUNS];
        int64_t all_from[RUNS], some_from[RUNS], chosen = 0;
        for (int64_t r = 0; r < count; ++r) {
            group[r] = runs[r * RUNS / count];
            all_from[r] = r;
        }
        for (int64_t r = count - 1; r >= 0; r -= 3) {
            some_from[chosen] = r;
            some[chosen++] = group[r];
        }
        struct trainer *whole = train(d, batch, layout, group, count, 1e9);
        struct trainer *saved = begin(NULL, d, batch, layout, group, count);
        int64_t cuts = 0, size;
        for (bool ended = false; !ended; ended = trainer_advance(saved, 0)) {
            /* At first every time, then now and then. */
            ++cuts;
            if (cuts > 16 && cuts % 197 != 0)
                continue;
            void *bytes = save(saved, &size);
            const bool all = cuts % 2 == 0;
            const int64_t taken = all ? count : chosen;
            const int64_t *from = all ? all_from : some_from;
            struct trainer *trainer =
                begin(wide ? widths[cuts / 2 % 2] : NULL, d, batch, layout, all ? group : some, taken);
            assert_true(trainer_restore(trainer, bytes, size, from));
            if (all) { /* and again at once: nothing is lost by it */
                assert_true(fabs(trainer_progress(saved).done - trainer_progress(trainer).done) < 1e-12);
                free(bytes);
                bytes = save(trainer, &size);
                trainer_free(trainer);
                trainer = begin(NULL, d, batch, layout, group, taken);
                assert_true(trainer_restore(trainer, bytes, size, from));
            }
            free(bytes);
            finish(trainer, taken, cuts % 3 == 0 ? 1e9 : 1e-4);
            for (int64_t r = 0; r < taken; ++r)
                assert_same_run(whole, from[r], trainer, r, d);
            trainer_free(trainer);
        }
        assert_true(cuts > 16);
        for (int64_t r = 0; r < count; ++r)
            assert_same_run(whole, r, saved, r, d);
        trainer_free(saved);
        trainer_free(whole);
    }
}

/* What is not of this group is refused, and leaves the trainer new. */
static void a_state_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    const int64_t from[RUNS] = {0, 1, 2, 3};
    struct trainer *saved = begin(NULL, 6, 4, layouts, runs, 4);
    for (int i = 0; i < 20; ++i)
        assert_false(trainer_advance(saved, 0));
    int64_t size;
    unsigned char *bytes = save(saved, &size);
    struct trainer *whole = train(6, 4, layouts, runs, 4, 1e9);
    struct trainer *other = begin(NULL, 7, 4, layouts, runs, 4);
    assert_false(trainer_restore(other, bytes, size, from));
    trainer_free(other);
    struct trainer *trainer = begin(NULL, 6, 4, layouts, runs, 4);
    assert_false(trainer_restore(trainer, bytes, size - 8, from));
    assert_false(trainer_restore(trainer, bytes, 8, from));
    assert_false(trainer_restore(trainer, bytes, size, (const int64_t[]){0, 1, 2, 4}));
    assert_false(trainer_restore(trainer, bytes, size, (const int64_t[]){0, 1, 2, -1}));
    /* Any of the head's numbers, and the first run's outcome. */
    for (int64_t at = 0; at < 7; ++at) {
        int64_t value = 0, wrong = INT64_MAX / 2;
        memcpy(&value, bytes + 8 * at, 8);
        for (int sign = 0; sign < 2; ++sign, wrong = -1) {
            memcpy(bytes + 8 * at, &wrong, 8);
            assert_false(trainer_restore(trainer, bytes, size, from));
        }
        memcpy(bytes + 8 * at, &value, 8);
    }
    finish(trainer, 4, 1e9);
    for (int64_t r = 0; r < 4; ++r)
        assert_same_run(whole, r, trainer, r, 6);
    trainer_free(trainer);
    trainer_free(whole);
    trainer_free(saved);
    free(bytes);
}

static void nothing_is_recorded_after_the_end(void **state)
{
    (void)state;
    struct trainer *trainer = train(10, 16, layouts, runs, RUNS, 1e9);
    double shares = 0;
    for (int64_t r = 0; r < RUNS; ++r) {
        const struct run_result *result = &trainer_results(trainer)[r];
        shares += result->wall_time;
        for (int k = 0; k < RECORDS; ++k) {
            double loss = trainer_field(trainer, RECORD_LOSS)[r * RECORDS + k];
            double batch_loss = trainer_field(trainer, RECORD_BATCH_LOSS)[r * RECORDS + k];
            assert_true(isnan(loss) == (steps_of_records[k] > result->steps_done) ||
                        result->outcome == OUTCOME_DIVERGED);
            assert_true(!isnan(batch_loss) || steps_of_records[k] > result->steps_done ||
                        result->outcome == OUTCOME_DIVERGED);
        }
        assert_true((result->outcome == OUTCOME_CONVERGED) == (result->final_error <= 0.05));
        assert_true((result->converged_step >= 0) == (result->outcome == OUTCOME_CONVERGED));
    }
    assert_true(shares > 0);
    trainer_free(trainer);
    trainer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_does_not_see_its_neighbours),
        cmocka_unit_test(a_saved_trainer_goes_on_with_the_same_bits),
        cmocka_unit_test(a_state_that_does_not_fit_is_refused),
        cmocka_unit_test(nothing_is_recorded_after_the_end),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
