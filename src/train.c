#include "sgdmap/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/cost.h"
#include "sgdmap/landscape.h"
#include "sgdmap/linalg.h"
#include "sgdmap/model.h"
#include "sgdmap/rng.h"
#include "sgdmap/samples.h"
#include "sgdmap/stopwatch.h"

/* The teachers of a group: as many as it has different kinds and norms. */
struct teacher {
    enum teacher_kind kind;
    double norm;
    int64_t active;  /* students that still learn from it */
    double *columns; /* [d][d] B */
    double *output;  /* [stride] f*(x_n) of this tile */
    double *test;    /* [test_samples] f* of the test set */
    struct landscape *landscape;
};

/* What students are to reproduce: a teacher's output, and noise. */
struct target {
    int64_t teacher;
    double noise;
    int64_t active;
    double *output; /* [stride] of this tile; without noise the teacher's own */
};

/* A run while it is trained. */
struct student {
    int64_t run;
    int64_t teacher, target;
    double first_error;
    double quarter_error; /* at the beginning of the last quarter */
    double near, far;     /* the sum of squares from the teacher at which a check has to look closer */
    bool leaving;         /* has ended; takes part in this step for its record only */
};

struct trainer {
    const struct kernels *kernels;
    struct train_group group;
    struct train_run *runs;
    int64_t *record_steps;

    int64_t lanes; /* students a block: of the vector, or 1 */
    int64_t block_count;
    int64_t check_interval;
    int64_t tile_max; /* steps whose inputs are drawn at once */
    int64_t stride;   /* samples of a tile, padded */

    int64_t teacher_count, target_count;
    struct teacher *teachers;
    struct target *targets;
    struct samples *samples;
    double *inputs;       /* X [d][stride], the steps of the tile one after the other */
    double *noise;        /* [stride] of the labels, in units of its bound; NULL: none has any */
    double *scratch;      /* of the directions and the spectral norm */
    double *workspace;    /* of a block's step */
    double *own_targets;  /* [batch][lanes] f* of a block whose students have different targets */
    double *own_teachers; /* [d][d][lanes] of a block whose students have different teachers */
    double *columns;      /* A or W of one student [d][d], for its diagnostics */
    double *
        schedules; /* [SCHEDULE_KIND_COUNT][tile_max] the step size, in units of a run's, of the tile's steps */

    double *blocks;           /* [block_count][d][d][lanes] A */
    struct student *students; /* [block_count * lanes] by slot; run < 0: an empty slot */
    double *factors;          /* [block_count * lanes] -2 eta / B, or -eta; 0 in an empty slot */
    int64_t *block_active;    /* [block_count] students in the block */
    int64_t active;
    bool has_schedules; /* other than constant ones */
    bool has_gaps;      /* a student has left since the slots were last filled */

    int64_t step;        /* at which the present tile begins */
    int64_t tile_steps;  /* of the present tile */
    int64_t next_block;  /* that takes the tile's steps; 0: the next tile is yet to be drawn */
    int64_t next_record; /* index of the first record not yet taken */
    double *fields[RECORD_FIELD_COUNT];
    double *phase_alignment,
        *phase_potential; /* [run_count][record_count], also where the fields are not wanted */
    struct run_result *results;
    double *final_columns; /* [run_count][d][d] A at the end */

    struct trainer_times times;
    double clock; /* when `share` was last brought up to date */
    double share; /* seconds that a run that is active since the start has had */
    /* Over all runs: steps to the end of the last tile, an ended run's to its end; what runs left out that have ended. */
    double steps_done, records_done, steps_saved, records_saved;
};

static int64_t slot_count(const struct trainer *t)
{
    return t->block_count * t->lanes;
}

static double *block_of(const struct trainer *t, int64_t block)
{
    return t->blocks + block * t->group.dimension * t->group.dimension * t->lanes;
}

/* A of a slot: entry k at [k * t->lanes]. */
static double *student_of(const struct trainer *t, int64_t slot)
{
    return block_of(t, slot / t->lanes) + slot % t->lanes;
}

static void get_columns(const struct trainer *t, int64_t slot, double *ret)
{
    const double *student = student_of(t, slot);
    for (int64_t k = 0; k < t->group.dimension * t->group.dimension; ++k)
        ret[k] = student[k * t->lanes];
}

static void set_columns(struct trainer *t, int64_t slot, const double *columns)
{
    double *student = student_of(t, slot);
    for (int64_t k = 0; k < t->group.dimension * t->group.dimension; ++k)
        student[k * t->lanes] = columns[k];
}

/* -- Construction ---------------------------------------------------------------------------------- */

static bool is_population(const struct trainer *t)
{
    return t->group.gradient == GRADIENT_POPULATION;
}

static int64_t teacher_of(const struct trainer *t, const struct train_run *run)
{
    int64_t i = 0;
    while (i < t->teacher_count &&
           (t->teachers[i].kind != run->teacher || t->teachers[i].norm != run->teacher_norm))
        ++i;
    return i;
}

static int64_t target_of(const struct trainer *t, const struct train_run *run)
{
    const int64_t teacher = teacher_of(t, run);
    int64_t i = 0;
    while (i < t->target_count && (t->targets[i].teacher != teacher || t->targets[i].noise != run->noise))
        ++i;
    return i;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Doubles of a block's step, and of an output of the test set. */
static int64_t workspace_size(const struct trainer *t)
{
    const int64_t d = t->group.dimension;
    if (t->group.in_lanes)
        return kernels_step_workspace(d, t->lanes);
    const int64_t stride = larger(t->stride, t->group.test_samples > 0 ? SAMPLES_PIECE : 0);
    return larger((d + 1) * stride, is_population(t) ? d * d : 0);
}

static int allocate(struct trainer *t, struct error *err)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, rows = g->run_count * g->record_count, slots = slot_count(t);
    const struct {
        double **array;
        int64_t count;
    } arrays[] = {
        {&t->inputs, d * t->stride},
        {&t->scratch, model_workspace(d)},
        {&t->workspace, workspace_size(t)},
        {&t->own_targets, g->batch_size * t->lanes},
        {&t->own_teachers, d * d * t->lanes},
        {&t->columns, d * d},
        {&t->schedules, SCHEDULE_KIND_COUNT * t->tile_max},
        {&t->blocks, slots * d * d},
        {&t->factors, slots},
        {&t->phase_alignment, rows},
        {&t->phase_potential, rows},
        {&t->final_columns, g->run_count * d * d},
    };
    bool ok = true;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; ++i)
        ok = (*arrays[i].array = linalg_new(arrays[i].count)) != NULL && ok;
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        if (g->fields >> f & 1) {
            ok = (t->fields[f] = linalg_new(rows)) != NULL && ok;
            for (int64_t i = 0; ok && i < rows; ++i)
                t->fields[f][i] = NAN;
        }
    t->results = calloc((size_t)g->run_count, sizeof *t->results);
    t->students = calloc((size_t)slots, sizeof *t->students);
    t->block_active = calloc((size_t)t->block_count, sizeof *t->block_active);
    t->teachers = calloc((size_t)g->run_count, sizeof *t->teachers);
    t->targets = calloc((size_t)g->run_count, sizeof *t->targets);
    bool noise = false;
    for (int64_t r = 0; r < g->run_count; ++r) {
        noise = noise || t->runs[r].noise > 0;
        t->has_schedules = t->has_schedules || t->runs[r].schedule != SCHEDULE_CONSTANT;
    }
    if (noise)
        ok = (t->noise = linalg_new(t->stride)) != NULL && ok;
    if (!ok || t->results == NULL || t->students == NULL || t->block_active == NULL || t->teachers == NULL ||
        t->targets == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a group of %lld runs of dimension %lld",
                         (long long)g->run_count, (long long)d);
    return 0;
}

/* ret[n] = f(x_n) of a network of these columns: inputs [d][stride], ret [padded count]. */
static void network_output(struct trainer *t, int64_t count, int64_t stride, const double *inputs,
                           const double *columns, double *ret)
{
    const int64_t d = t->group.dimension, padded = kernels_padded(count);
    if (t->group.in_lanes) {
        t->kernels->fused->output(d, padded, stride, inputs, columns, ret);
        return;
    }
    linalg_product(LINALG_PLAIN, count, d, d, inputs, stride, columns, d, 0, t->workspace, stride);
    t->kernels->relu_sum(padded, d, stride, t->workspace, ret);
}

static void answer_test(struct trainer *t, struct teacher *teacher)
{
    double output[SAMPLES_PIECE] __attribute__((aligned(64)));
    for (int64_t piece = 0, count, done = 0; done < t->group.test_samples; ++piece, done += count) {
        const double *inputs = samples_test(t->samples, piece, &count);
        network_output(t, count, SAMPLES_PIECE, inputs, teacher->columns, output);
        memcpy(teacher->test + done, output, (size_t)count * sizeof *output);
    }
}

static int add_teacher(struct trainer *t, const struct train_run *run, struct error *err)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    struct teacher *teacher = &t->teachers[t->teacher_count++];
    teacher->kind = run->teacher;
    teacher->norm = run->teacher_norm;
    teacher->columns = linalg_new(rng_padded(d * d));
    teacher->output = linalg_new(t->stride);
    teacher->test = linalg_new(g->test_samples);
    if (teacher->columns == NULL || teacher->output == NULL || teacher->test == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a teacher of dimension %lld", (long long)d);
    /* Of the same kind there may be one already, whose direction is this one's; to make it anew is cheap. */
    model_teacher_direction(t->kernels, g->seed, g->replicate, d, run->teacher, g->teacher_rank,
                            teacher->columns, t->scratch);
    model_teacher(d, run->teacher_norm, teacher->columns);
    answer_test(t, teacher);
    return landscape_new(t->kernels, d, teacher->columns, &teacher->landscape, err);
}

static int add_target(struct trainer *t, const struct train_run *run, struct error *err)
{
    const int64_t teacher = teacher_of(t, run);
    if (teacher == t->teacher_count)
        TRY(add_teacher(t, run, err));
    struct target *target = &t->targets[t->target_count++];
    *target = (struct target){.teacher = teacher, .noise = run->noise};
    target->output = run->noise > 0 ? linalg_new(t->stride) : t->teachers[teacher].output;
    if (target->output == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a group's labels");
    return 0;
}

static void free_doubles(double **doubles)
{
    free(*doubles);
}

/* Run r into an empty slot, with its columns. */
static void place_run(struct trainer *t, int64_t slot, int64_t r, const double *columns)
{
    const struct train_run *run = &t->runs[r];
    const int64_t target = target_of(t, run), teacher = t->targets[target].teacher;
    ++t->targets[target].active;
    ++t->teachers[teacher].active;
    t->students[slot] = (struct student){.run = r, .teacher = teacher, .target = target};
    t->factors[slot] = is_population(t) ? -run->step_size : -2 * run->step_size / (double)t->group.batch_size;
    set_columns(t, slot, columns);
    ++t->block_active[slot / t->lanes];
}

static int place_runs(struct trainer *t, struct error *err)
{
    const struct train_group *g = &t->group;
    double *initial __attribute__((cleanup(free_doubles))) =
        linalg_new(rng_padded(g->dimension * g->dimension));
    if (initial == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a group");
    model_initial_direction(t->kernels, g->seed, g->replicate, g->dimension, initial);
    for (int64_t slot = 0; slot < slot_count(t); ++slot)
        t->students[slot].run = -1;
    for (int64_t r = 0; r < g->run_count; ++r) {
        const struct train_run *run = &t->runs[r];
        if (target_of(t, run) == t->target_count)
            TRY(add_target(t, run, err));
        model_student(initial, g->dimension, run->init_scale, run->link, t->columns);
        place_run(t, r, r, t->columns);
        t->results[r] = (struct run_result){.outcome = OUTCOME_RUNNING,
                                            .converged_step = -1,
                                            .phase2_step = -1,
                                            .final_error = NAN,
                                            .final_loss = NAN};
    }
    t->active = g->run_count;
    return 0;
}

/* Steps at a time: their inputs stay in the second level of cache while block after block uses them. */
static int64_t tile_steps(int64_t dimension, int64_t batch)
{
    const int64_t most = 32, bytes = INT64_C(64) * 1024;
    const int64_t inputs = dimension * batch,
                  steps = bytes / (int64_t)sizeof(double) / (inputs > 0 ? inputs : 1);
    return steps < 1 ? 1 : steps > most ? most : steps;
}

int trainer_new(const struct kernels *kernels, const struct train_group *group, struct trainer **ret,
                struct error *err)
{
    struct trainer *t = calloc(1, sizeof *t);
    if (t == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a group");
    t->kernels = kernels;
    t->group = *group;
    t->runs = malloc((size_t)group->run_count * sizeof *t->runs);
    t->record_steps = malloc((size_t)group->record_count * sizeof *t->record_steps);
    if (t->runs == NULL || t->record_steps == NULL) {
        trainer_free(t);
        return error_set(err, ERROR_MEMORY, "out of memory for a group");
    }
    memcpy(t->runs, group->runs, (size_t)group->run_count * sizeof *t->runs);
    memcpy(t->record_steps, group->record_steps, (size_t)group->record_count * sizeof *t->record_steps);
    t->group.runs = t->runs;
    t->group.record_steps = t->record_steps;

    const int64_t d = group->dimension, batch = group->batch_size;
    t->lanes = group->in_lanes ? kernels->fused->lanes : 1;
    /* One more than they fill: see trainer_restore(). */
    t->block_count = (group->run_count + t->lanes - 1) / t->lanes + (t->lanes > 1);
    t->tile_max = group->in_lanes || is_population(t) ? tile_steps(d, batch) : 1;
    t->stride = kernels_padded(t->tile_max * batch);
    /* The error costs d^2 operations a student where the step costs 4 B d^2: with few samples not at every
     * step. */
    t->check_interval = batch > 0 ? (32 + batch - 1) / batch : 1;
    int code = allocate(t, err);
    const struct samples_plan plan = {.seed = group->seed,
                                      .replicate = group->replicate,
                                      .dimension = d,
                                      .input = group->input,
                                      .batch = batch,
                                      .data = group->data,
                                      .test = group->test_samples,
                                      .noise = t->noise != NULL};
    if (code == 0)
        code = samples_new(kernels, &plan, &t->samples, err);
    if (code == 0)
        code = place_runs(t, err);
    if (code != 0) {
        trainer_free(t);
        return code;
    }
    *ret = t;
    return 0;
}

void trainer_free(struct trainer *t)
{
    if (t == NULL)
        return;
    for (int64_t i = 0; i < t->teacher_count; ++i) {
        free(t->teachers[i].columns);
        free(t->teachers[i].output);
        free(t->teachers[i].test);
        landscape_free(t->teachers[i].landscape);
    }
    for (int64_t i = 0; i < t->target_count; ++i)
        if (t->targets[i].noise > 0)
            free(t->targets[i].output);
    samples_free(t->samples);
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        free(t->fields[f]);
    void *arrays[] = {t->runs,        t->record_steps,    t->teachers,        t->targets,
                      t->inputs,      t->noise,           t->scratch,         t->workspace,
                      t->own_targets, t->own_teachers,    t->columns,         t->schedules,
                      t->blocks,      t->students,        t->factors,         t->block_active,
                      t->results,     t->phase_alignment, t->phase_potential, t->final_columns};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; ++i)
        free(arrays[i]);
    free(t);
}

/* -- Looking at students --------------------------------------------------------------------------- */

static void bring_clock_up(struct trainer *t)
{
    double time = stopwatch_now();
    if (t->active > 0)
        t->share += (time - t->clock) / (double)t->active;
    t->clock = time;
}

/* The mean squared residual of t->columns over the test set. */
static double test_loss(struct trainer *t, const struct teacher *teacher)
{
    double output[SAMPLES_PIECE] __attribute__((aligned(64))), sum = 0;
    for (int64_t piece = 0, count, done = 0; done < t->group.test_samples; ++piece, done += count) {
        const double *inputs = samples_test(t->samples, piece, &count), *wanted = teacher->test + done;
        network_output(t, count, SAMPLES_PIECE, inputs, t->columns, output);
        sum += t->kernels->squared_distance(count, output, wanted);
    }
    return sum / (double)t->group.test_samples;
}

/* The diagnostics of t->columns, a student's; also into the record's row if there is one to take. */
static double measure(struct trainer *t, const struct student *student, bool record)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    const double start = stopwatch_now();
    struct diagnostics diagnostics;
    landscape_measure(t->teachers[student->teacher].landscape, t->columns, &diagnostics, NULL);
    if (!record) {
        t->times.diagnostics += stopwatch_now() - start;
        return diagnostics.loss;
    }
    const double values[RECORD_FIELD_COUNT] = {
        [RECORD_LOSS] = diagnostics.loss,
        [RECORD_BATCH_LOSS] = is_population(t) ? diagnostics.loss : NAN,
        [RECORD_ERROR] = diagnostics.error,
        [RECORD_POTENTIAL] = diagnostics.potential,
        [RECORD_POTENTIAL_NORM] = diagnostics.potential_norm,
        [RECORD_ALIGNMENT] = diagnostics.alignment,
        [RECORD_GRADIENT_NORM] = diagnostics.gradient_norm,
        [RECORD_WEIGHT_NORM] = NAN,
        [RECORD_TEST_LOSS] =
            t->fields[RECORD_TEST_LOSS] != NULL ? test_loss(t, &t->teachers[student->teacher]) : NAN,
    };
    const int64_t at = student->run * g->record_count + t->next_record;
    ++t->records_done;
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        if (t->fields[f] != NULL)
            t->fields[f][at] = values[f];
    t->phase_alignment[at] = diagnostics.alignment;
    t->phase_potential[at] = diagnostics.potential_norm;
    if (t->fields[RECORD_WEIGHT_NORM] != NULL) {
        for (int64_t j = 0; j < d && t->runs[student->run].link == LINK_IDENTITY; ++j)
            t->columns[j * d + j] -= 1;
        t->fields[RECORD_WEIGHT_NORM][at] = linalg_spectral_norm(t->kernels, d, t->columns, d, t->scratch);
    }
    t->times.diagnostics += stopwatch_now() - start;
    return diagnostics.loss;
}

/* The slot is empty afterwards, and zero, so that nothing grows there. */
static void clear_slot(struct trainer *t, int64_t slot)
{
    const int64_t d = t->group.dimension;
    double *student = student_of(t, slot);
    for (int64_t k = 0; k < d * d; ++k)
        student[k * t->lanes] = 0;
    t->factors[slot] = 0;
    --t->teachers[t->students[slot].teacher].active;
    --t->targets[t->students[slot].target].active;
    t->students[slot].run = -1;
    --t->block_active[slot / t->lanes];
    t->has_gaps = true;
}

/* The run has ended at step `at`, which is a record's or not. At a record it takes part in this step's forward pass, for
 * its batch_loss, before it leaves its slot. */
static void end_run(struct trainer *t, int64_t slot, int64_t at, bool record)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, run = t->students[slot].run;
    struct run_result *result = &t->results[run];
    bring_clock_up(t);
    result->wall_time = t->share;
    result->steps_done = at;
    get_columns(t, slot, t->final_columns + run * d * d);
    const int64_t row = run * g->record_count;
    const int64_t phase2 =
        record_phase2(t->phase_alignment + row, t->phase_potential + row, t->next_record + record, d);
    result->phase2_step = phase2 < 0 ? -1 : t->record_steps[phase2];
    t->steps_done += (double)(at - t->step);
    t->steps_saved += (double)(g->steps - at);
    t->records_saved += (double)(g->record_count - t->next_record - record);
    --t->active;
    if (record) {
        t->students[slot].leaving = true;
        t->factors[slot] = 0;
    } else {
        clear_slot(t, slot);
    }
}

static void set_first_error(const struct trainer *t, struct student *student, double error)
{
    /* A little wide: what counts is the comparison of the errors in check(). */
    const double d = (double)t->group.dimension, farthest = 1e3 * fmax(1, error);
    student->first_error = error;
    student->near = t->group.tolerance * t->group.tolerance * d * (1 + 1e-12);
    student->far = farthest * farthest * d * (1 - 1e-12);
}

/* Looks closer at a student that has arrived at step `at`, `squares` from its teacher: has it ended here? */
static void check(struct trainer *t, int64_t slot, int64_t at, bool record, double squares)
{
    const struct train_group *g = &t->group;
    const double d = (double)g->dimension;
    struct student *student = &t->students[slot];
    const double error = sqrt(squares / d);
    if (at == 0)
        set_first_error(t, student, error);
    if (at == g->steps - g->steps / 4)
        student->quarter_error = error;

    enum outcome outcome = OUTCOME_RUNNING;
    if (error <= g->tolerance)
        outcome = OUTCOME_CONVERGED;
    else if (!(error <= 1e3 * fmax(1, student->first_error)))
        outcome = OUTCOME_DIVERGED;
    else if (at == g->steps)
        outcome = error > 0.99 * student->quarter_error ? OUTCOME_STALLED : OUTCOME_UNFINISHED;

    const bool ends = outcome != OUTCOME_RUNNING;
    if (!ends && !record)
        return;
    get_columns(t, slot, t->columns);
    const double loss = measure(t, student, record);
    if (!ends)
        return;
    struct run_result *result = &t->results[student->run];
    result->outcome = outcome;
    result->converged_step = outcome == OUTCOME_CONVERGED ? at : -1;
    result->final_error = error;
    result->final_loss = loss;
    end_run(t, slot, at, record);
}

/* The teacher and the target of all students of a block; -1 where they have several. */
struct common {
    int64_t teacher, target;
};

static struct common common_of(const struct trainer *t, int64_t block)
{
    struct common ret = {-1, -1};
    bool first = true;
    for (int64_t slot = block * t->lanes; slot < (block + 1) * t->lanes; ++slot) {
        const struct student *student = &t->students[slot];
        if (student->run < 0)
            continue;
        ret.teacher = first || ret.teacher == student->teacher ? student->teacher : -1;
        ret.target = first || ret.target == student->target ? student->target : -1;
        first = false;
    }
    return ret;
}

/* What a block's students have in common; if that is not the teacher, own_teachers has them. */
static struct common prepare_block(struct trainer *t, int64_t block)
{
    const int64_t d = t->group.dimension;
    const struct common ret = common_of(t, block);
    for (int64_t lane = 0; ret.teacher < 0 && lane < t->lanes; ++lane) {
        const struct student *student = &t->students[block * t->lanes + lane];
        const double *columns = student->run >= 0 ? t->teachers[student->teacher].columns : NULL;
        for (int64_t k = 0; k < d * d; ++k)
            t->own_teachers[k * t->lanes + lane] = columns != NULL ? columns[k] : 0;
    }
    return ret;
}

static void check_block(struct trainer *t, int64_t block, int64_t teacher, int64_t at, bool record)
{
    const int64_t d = t->group.dimension, first = block * t->lanes;
    const bool closer = record || at == t->group.steps - t->group.steps / 4;
    const struct kernels_fused *fused = t->kernels->fused;
    double squares[KERNELS_LANES] = {0};
    if (!t->group.in_lanes)
        squares[0] = t->kernels->squared_distance(d * d, block_of(t, block), t->teachers[teacher].columns);
    else if (teacher >= 0)
        fused->distances(d, t->teachers[teacher].columns, block_of(t, block), squares);
    else
        fused->distances_from_own(d, t->own_teachers, block_of(t, block), squares);
    for (int64_t lane = 0; lane < t->lanes; ++lane) {
        const struct student *student = &t->students[first + lane];
        if (student->run >= 0 && (closer || !(squares[lane] > student->near && squares[lane] < student->far)))
            check(t, first + lane, at, record, squares[lane]);
    }
}

/* -- Steps ----------------------------------------------------------------------------------------- */

/* The step size at a step, in units of a run's: the schedule's definition in config.h. */
static double schedule_value(const struct train_group *g, enum schedule_kind schedule, int64_t step)
{
    static const double PI = 0x1.921fb54442d18p1;
    switch (schedule) {
    case SCHEDULE_INVERSE_TIME:
        return 1 / (1 + (double)step / g->decay);
    case SCHEDULE_COSINE:
        return (1 + cos(PI * (double)step / (double)g->steps)) / 2;
    default:
        return 1;
    }
}

static void set_schedules(struct trainer *t)
{
    for (int kind = 0; t->has_schedules && kind < SCHEDULE_KIND_COUNT; ++kind)
        for (int64_t s = 0; s < t->tile_steps; ++s)
            t->schedules[kind * t->tile_max + s] =
                schedule_value(&t->group, (enum schedule_kind)kind, t->step + s);
}

/* The inputs of the tile, and what the teachers make of them. */
static void draw_inputs(struct trainer *t)
{
    const int64_t steps = t->tile_steps;
    const struct train_group *g = &t->group;
    const int64_t batch = g->batch_size;
    const double start = stopwatch_now();
    for (int64_t s = 0; s < steps; ++s) {
        samples_step(t->samples, t->step + s, t->stride, t->inputs + s * batch);
        if (t->noise != NULL)
            samples_noise(t->samples, t->step + s, t->noise + s * batch);
    }
    for (int64_t i = 0; i < t->teacher_count; ++i)
        if (t->teachers[i].active > 0)
            network_output(t, steps * batch, t->stride, t->inputs, t->teachers[i].columns,
                           t->teachers[i].output);
    for (int64_t i = 0; t->noise != NULL && i < t->target_count; ++i) {
        const struct target *target = &t->targets[i];
        const double *clean = t->teachers[target->teacher].output;
        for (int64_t n = 0; target->noise > 0 && target->active > 0 && n < steps * batch; ++n)
            target->output[n] = clean[n] + target->noise * t->noise[n];
    }
    t->times.inputs += stopwatch_now() - start;
}

/* The factor of a slot's gradient at a step of the tile. */
static double factor_at(const struct trainer *t, int64_t slot, int64_t tile_step)
{
    const struct student *student = &t->students[slot];
    if (!t->has_schedules || student->run < 0)
        return t->factors[slot];
    return t->factors[slot] * t->schedules[t->runs[student->run].schedule * t->tile_max + tile_step];
}

static void step_lanes(struct trainer *t, int64_t block, int64_t target, int64_t tile_step, double *squares)
{
    const struct train_group *g = &t->group;
    const int64_t batch = g->batch_size, first = block * t->lanes, sample = tile_step * batch;
    double factors[KERNELS_LANES] __attribute__((aligned(64)));
    for (int64_t lane = 0; lane < t->lanes; ++lane)
        factors[lane] = factor_at(t, first + lane, tile_step);
    struct kernels_step step = {.dimension = g->dimension,
                                .batch = batch,
                                .stride = t->stride,
                                .inputs = t->inputs + sample,
                                .target = t->own_targets,
                                .target_lanes = t->lanes,
                                .factor = factors,
                                .students = block_of(t, block),
                                .workspace = t->workspace,
                                .squares = squares};
    if (target >= 0) {
        step.target = t->targets[target].output + sample;
        step.target_lanes = 1;
    } else {
        for (int64_t lane = 0; lane < t->lanes; ++lane) {
            const double *output = t->targets[t->students[first + lane].target].output;
            for (int64_t n = 0; n < batch; ++n)
                t->own_targets[n * t->lanes + lane] = output[sample + n];
        }
    }
    t->kernels->fused->step(&step);
}

static void step_matrix(struct trainer *t, int64_t slot, int64_t tile_step, double *squares)
{
    const int64_t d = t->group.dimension, batch = t->group.batch_size;
    const struct student *student = &t->students[slot];
    double *z = t->workspace, *residual = z + d * t->stride, *columns = block_of(t, slot);
    linalg_product(LINALG_PLAIN, batch, d, d, t->inputs, t->stride, columns, d, 0, z, t->stride);
    t->kernels->gate(t->stride, d, t->stride, factor_at(t, slot, tile_step),
                     t->targets[student->target].output, z, residual);
    *squares = t->kernels->dot(batch, residual, residual);
    if (!student->leaving)
        linalg_product(LINALG_TRANSPOSED, d, d, batch, t->inputs, t->stride, z, t->stride, 1, columns, d);
}

static void step_population(struct trainer *t, int64_t slot, int64_t tile_step)
{
    const int64_t d = t->group.dimension;
    const double factor = factor_at(t, slot, tile_step);
    double *columns = block_of(t, slot), *gradient = t->workspace;
    if (t->students[slot].leaving)
        return;
    landscape_gradient(t->teachers[t->students[slot].teacher].landscape, columns, gradient);
    for (int64_t k = 0; k < d * d; ++k)
        columns[k] += factor * gradient[k];
}

/* squares [lanes]: sum of the residuals' squares, where there are samples. */
static void step_block(struct trainer *t, int64_t block, int64_t target, int64_t tile_step, double *squares)
{
    if (is_population(t))
        step_population(t, block, tile_step);
    else if (t->group.in_lanes)
        step_lanes(t, block, target, tile_step, squares);
    else
        step_matrix(t, block, tile_step, squares);
}

/* A block's steps of a tile with no record in it. */
static void train_block(struct trainer *t, int64_t block)
{
    const int64_t quarter = t->group.steps - t->group.steps / 4;
    double squares[KERNELS_LANES];
    if (t->block_active[block] == 0)
        return;
    const struct common common = prepare_block(t, block);
    for (int64_t s = 0; s < t->tile_steps && t->block_active[block] > 0; ++s) {
        const int64_t at = t->step + s;
        if (at % t->check_interval == 0 || at == quarter)
            check_block(t, block, common.teacher, at, false);
        if (t->block_active[block] > 0)
            step_block(t, block, common.target, s, squares);
    }
}

/* A block's step of a record. */
static void record_block(struct trainer *t, int64_t block)
{
    const struct train_group *g = &t->group;
    double *batch_loss = t->fields[RECORD_BATCH_LOSS], squares[KERNELS_LANES] = {0};
    if (t->block_active[block] == 0)
        return;
    const bool batches = batch_loss != NULL && !is_population(t);
    const struct common common = prepare_block(t, block);
    check_block(t, block, common.teacher, t->step, true);
    if (t->step < g->steps || batches)
        step_block(t, block, common.target, 0, squares);
    for (int64_t lane = 0; lane < t->lanes; ++lane) {
        const int64_t slot = block * t->lanes + lane;
        const struct student *student = &t->students[slot];
        if (student->run < 0)
            continue;
        if (batches)
            batch_loss[student->run * g->record_count + t->next_record] =
                squares[lane] / (double)g->batch_size;
        if (student->leaving)
            clear_slot(t, slot);
    }
}

/* The last students move up into the slots of those that left, so that no lane is computed empty. */
static void fill_gaps(struct trainer *t)
{
    t->has_gaps = false;
    for (int64_t to = 0, from = slot_count(t) - 1;;) {
        while (to < from && t->students[to].run >= 0)
            ++to;
        while (from > to && t->students[from].run < 0)
            --from;
        if (to >= from)
            return;
        get_columns(t, from, t->columns);
        set_columns(t, to, t->columns);
        t->students[to] = t->students[from];
        t->factors[to] = t->factors[from];
        ++t->block_active[to / t->lanes];
        ++t->teachers[t->students[to].teacher].active;
        ++t->targets[t->students[to].target].active;
        clear_slot(t, from);
        t->has_gaps = false;
    }
}

static bool is_record(const struct trainer *t)
{
    return t->record_steps[t->next_record] == t->step;
}

/* A tile ends where there is a record, and a record's step is a tile of its own. */
static int64_t next_tile_steps(const struct trainer *t)
{
    const int64_t until_record = t->record_steps[t->next_record] - t->step;
    return until_record == 0 ? 1 : until_record < t->tile_max ? until_record : t->tile_max;
}

static void begin_tile(struct trainer *t)
{
    t->tile_steps = next_tile_steps(t);
    set_schedules(t);
    if (is_population(t))
        return;
    if (t->step < t->group.steps || t->fields[RECORD_BATCH_LOSS] != NULL)
        draw_inputs(t);
}

static void end_tile(struct trainer *t)
{
    t->next_block = 0;
    t->next_record += is_record(t);
    t->steps_done += (double)(t->active * t->tile_steps);
    t->step += t->tile_steps;
    if (t->has_gaps)
        fill_gaps(t);
}

/* A block of the present tile. */
static void train_some(struct trainer *t)
{
    if (t->next_block == 0)
        begin_tile(t);
    if (is_record(t))
        record_block(t, t->next_block);
    else
        train_block(t, t->next_block);
    if (++t->next_block == t->block_count || t->active == 0)
        end_tile(t);
}

bool trainer_advance(struct trainer *t, double seconds)
{
    const double start = stopwatch_now(), end = start + seconds;
    t->clock = start;
    while (t->active > 0) {
        train_some(t);
        if (stopwatch_now() >= end)
            break;
    }
    bring_clock_up(t);
    t->times.all += t->clock - start;
    return t->active == 0;
}

/* -- Saving ---------------------------------------------------------------------------------------- */

/* A saved trainer: the head, then for each run a struct saved_run, its records' alignment and potential, its wanted
 * fields, each [records], and A [d][d]; all members have 8 bytes. */
struct saved_head {
    int64_t dimension, run_count, record_count, fields;
    int64_t step;        /* at which the tile begins */
    int64_t next_record; /* at the beginning of the tile */
    int64_t records;     /* that a run may have */
    double share;
};

struct saved_run {
    int64_t ahead; /* it has taken the tile's steps */
    int64_t outcome, steps_done, converged_step, phase2_step;
    double final_error, final_loss, wall_time;
    double first_error, quarter_error;
};

/* Fields of a run's records, with the two of the phases. */
static int64_t saved_fields(const struct trainer *t)
{
    int64_t ret = 2;
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        ret += t->fields[f] != NULL;
    return ret;
}

static int64_t saved_run_size(const struct trainer *t, int64_t records)
{
    const int64_t d = t->group.dimension;
    return (int64_t)sizeof(struct saved_run) + (saved_fields(t) * records + d * d) * (int64_t)sizeof(double);
}

/* With the present tile's, if it is a record's. */
static int64_t saved_records(const struct trainer *t)
{
    return t->next_record + (t->next_record < t->group.record_count && is_record(t));
}

int64_t trainer_saved_size(const struct trainer *t)
{
    return (int64_t)sizeof(struct saved_head) + t->group.run_count * saved_run_size(t, saved_records(t));
}

int64_t trainer_saved_limit(const struct trainer *t, int64_t run_count)
{
    return (int64_t)sizeof(struct saved_head) + run_count * saved_run_size(t, t->group.record_count);
}

/* Moves `size` bytes from or to a saved trainer, and `saved` on. */
static void move(bool save, unsigned char **saved, void *ours, size_t size)
{
    if (save)
        memcpy(*saved, ours, size);
    else
        memcpy(ours, *saved, size);
    *saved += size;
}

static void move_records(struct trainer *t, bool save, int64_t run, int64_t records, unsigned char **saved)
{
    double *rows[RECORD_FIELD_COUNT + 2] = {t->phase_alignment, t->phase_potential};
    memcpy(rows + 2, t->fields, sizeof t->fields);
    for (int f = 0; f < RECORD_FIELD_COUNT + 2; ++f)
        if (rows[f] != NULL)
            move(save, saved, rows[f] + run * t->group.record_count, (size_t)records * sizeof(double));
}

void trainer_save(const struct trainer *t, void *ret)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, records = saved_records(t);
    const struct saved_head head = {.dimension = d,
                                    .run_count = g->run_count,
                                    .record_count = g->record_count,
                                    .fields = g->fields,
                                    .step = t->step,
                                    .next_record = t->next_record,
                                    .records = records,
                                    .share = t->share};
    memcpy(ret, &head, sizeof head);
    unsigned char *const runs = (unsigned char *)ret + sizeof head;
    for (int64_t r = 0; r < g->run_count; ++r) {
        const struct run_result *result = &t->results[r];
        const struct saved_run saved = {.outcome = (int64_t)result->outcome,
                                        .steps_done = result->steps_done,
                                        .converged_step = result->converged_step,
                                        .phase2_step = result->phase2_step,
                                        .final_error = result->final_error,
                                        .final_loss = result->final_loss,
                                        .wall_time = result->wall_time};
        unsigned char *at = runs + r * saved_run_size(t, records);
        move(true, &at, (void *)&saved, sizeof saved);
        move_records((struct trainer *)t, true, r, records, &at);
        memcpy(at, t->final_columns + r * d * d, (size_t)(d * d) * sizeof(double));
    }
    /* What stands in slots, over it. */
    for (int64_t slot = 0; slot < slot_count(t); ++slot) {
        const struct student *student = &t->students[slot];
        if (student->run < 0)
            continue;
        unsigned char *const at = runs + student->run * saved_run_size(t, records);
        struct saved_run saved;
        memcpy(&saved, at, sizeof saved);
        saved.ahead = slot / t->lanes < t->next_block;
        saved.first_error = student->first_error;
        saved.quarter_error = student->quarter_error;
        memcpy(at, &saved, sizeof saved);
        get_columns(t, slot, t->columns);
        memcpy(at + saved_run_size(t, records) - d * d * (int64_t)sizeof(double), t->columns,
               (size_t)(d * d) * sizeof(double));
    }
}

/* Does a saved trainer of `size` bytes belong to such a group? Nothing in it can lead out of bounds then. */
static bool fits(const struct trainer *t, const void *state, int64_t size, const int64_t *from)
{
    const struct saved_head *head = state;
    if (size < (int64_t)sizeof *head)
        return false;
    const struct train_group *g = &t->group;
    if (head->dimension != g->dimension || head->record_count != g->record_count ||
        head->fields != (int64_t)g->fields || head->next_record < 0 || head->next_record > g->record_count ||
        head->records < head->next_record || head->records > head->next_record + 1 ||
        head->records > g->record_count || head->run_count < 1)
        return false;
    const int64_t runs_size = size - (int64_t)sizeof *head, run_size = saved_run_size(t, head->records);
    if (runs_size % run_size != 0 || runs_size / run_size != head->run_count)
        return false;
    bool active = false;
    for (int64_t r = 0; r < g->run_count; ++r) {
        if (from[r] < 0 || from[r] >= head->run_count)
            return false;
        const struct saved_run *run = (const void *)((const char *)state + sizeof *head + from[r] * run_size);
        if (run->outcome < OUTCOME_RUNNING || run->outcome > OUTCOME_UNFINISHED || run->steps_done < 0 ||
            run->steps_done > g->steps)
            return false;
        active = active || run->outcome == OUTCOME_RUNNING;
    }
    /* Between the last record and the next. */
    const int64_t *steps = t->record_steps;
    return !active || (head->next_record < g->record_count && head->step >= 0 &&
                       head->step <= steps[head->next_record] &&
                       (head->next_record == 0 || head->step > steps[head->next_record - 1]));
}

/* A run that has ended by step `at`. */
static void restore_ended(struct trainer *t, int64_t run, const struct saved_run *saved)
{
    const struct train_group *g = &t->group;
    t->results[run] = (struct run_result){.outcome = (enum outcome)saved->outcome,
                                          .steps_done = saved->steps_done,
                                          .converged_step = saved->converged_step,
                                          .phase2_step = saved->phase2_step,
                                          .final_error = saved->final_error,
                                          .final_loss = saved->final_loss,
                                          .wall_time = saved->wall_time};
    int64_t records = 0;
    while (records < g->record_count && t->record_steps[records] <= saved->steps_done)
        ++records;
    t->records_done += (double)records;
    t->records_saved += (double)(g->record_count - records);
    t->steps_done += (double)saved->steps_done;
    t->steps_saved += (double)(g->steps - saved->steps_done);
    --t->active;
}

bool trainer_restore(struct trainer *t, const void *state, int64_t size, const int64_t *from)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    if (!fits(t, state, size, from))
        return false;
    const struct saved_head head = *(const struct saved_head *)state;

    t->step = head.step;
    t->next_record = head.next_record;
    t->share = head.share;
    for (int64_t slot = 0; slot < slot_count(t); ++slot)
        if (t->students[slot].run >= 0)
            clear_slot(t, slot);
    /* Those that have taken the tile's steps stand in the first blocks, and for them alone a block more may be needed; the
     * others take the steps next. */
    int64_t slot = 0;
    for (int ahead = 1; ahead >= 0; --ahead) {
        for (int64_t r = 0; r < g->run_count; ++r) {
            struct saved_run saved = {0};
            unsigned char *at =
                (unsigned char *)state + sizeof head + from[r] * saved_run_size(t, head.records);
            move(false, &at, &saved, sizeof saved);
            if ((saved.ahead != 0) != (ahead != 0))
                continue;
            move_records(t, false, r, head.records, &at);
            const bool ended = saved.outcome != OUTCOME_RUNNING;
            double *columns = ended ? t->final_columns + r * d * d : t->columns;
            memcpy(columns, at, (size_t)(d * d) * sizeof(double));
            if (ended) {
                restore_ended(t, r, &saved);
                continue;
            }
            place_run(t, slot, r, columns);
            set_first_error(t, &t->students[slot], saved.first_error);
            t->students[slot++].quarter_error = saved.quarter_error;
            t->steps_done += (double)t->step;
            t->records_done += (double)(t->next_record + (ahead && is_record(t)));
        }
        if (ahead) {
            t->next_block = (slot + t->lanes - 1) / t->lanes;
            slot = t->next_block * t->lanes;
        }
    }
    t->has_gaps = t->next_block > 0;
    if (t->next_block > 0 && t->active > 0)
        begin_tile(t);
    if (t->next_block == t->block_count && t->active > 0)
        end_tile(t);
    return true;
}

/* -- Results --------------------------------------------------------------------------------------- */

struct trainer_progress trainer_progress(const struct trainer *t)
{
    const struct train_group *g = &t->group;
    const struct cost_shape shape = {.dimension = g->dimension,
                                     .batch_size = g->batch_size,
                                     .in_lanes = g->in_lanes,
                                     .population = is_population(t),
                                     .test = g->test_samples};
    const double step = cost_step(&shape), record = cost_record(&shape);
    const double all = ((double)g->steps * step + (double)g->record_count * record) * (double)g->run_count;
    return (struct trainer_progress){.done = (t->steps_done * step + t->records_done * record) / all,
                                     .saved = (t->steps_saved * step + t->records_saved * record) / all};
}

struct trainer_times trainer_times(const struct trainer *t)
{
    return t->times;
}

const double *trainer_field(const struct trainer *t, enum record_field field)
{
    return t->fields[field];
}

const struct run_result *trainer_results(const struct trainer *t)
{
    return t->results;
}

static void weights_as_rows(int64_t d, const double *columns, double identity, double *ret)
{
    for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; ++j)
            ret[i * d + j] = columns[j * d + i] - (i == j ? identity : 0);
}

void trainer_student(const struct trainer *t, int64_t run, double *ret)
{
    const int64_t d = t->group.dimension;
    weights_as_rows(d, t->final_columns + run * d * d, t->runs[run].link == LINK_IDENTITY ? 1 : 0, ret);
}

void trainer_teacher(const struct trainer *t, int64_t run, double *ret)
{
    weights_as_rows(t->group.dimension, t->teachers[teacher_of(t, &t->runs[run])].columns, 1, ret);
}
