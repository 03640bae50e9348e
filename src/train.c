#include "sgdmap/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/cost.h"
#include "sgdmap/landscape.h"
#include "sgdmap/linalg.h"
#include "sgdmap/model.h"
#include "sgdmap/rng.h"
#include "sgdmap/stopwatch.h"

/* The teachers of a group: as many as it has different norms. */
struct teacher {
    double norm;
    int64_t active;  /* students that still learn from it */
    double *columns; /* [d][d] B */
    double *output;  /* [stride] f*(x_n) of this tile */
    struct landscape *landscape;
};

/* A run while it is trained. */
struct student {
    int64_t run;
    int64_t teacher;
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

    int64_t teacher_count;
    struct teacher *teachers;
    struct model_directions directions;
    double *inputs;    /* X [d][stride], the steps of the tile one after the other */
    double *scratch;   /* the inputs' stream, and the spectral norm's workspace */
    double *workspace; /* of a block's step */
    double *targets;   /* [batch][lanes] f* of a block whose students have different teachers */
    double *columns;   /* A or W of one student [d][d], for its diagnostics */

    double *blocks;           /* [block_count][d][d][lanes] A */
    struct student *students; /* [block_count * lanes] by slot; run < 0: an empty slot */
    double *factors, *norms;  /* [block_count * lanes] -2 eta / B, 0 in an empty slot; the teacher's norm */
    int64_t *block_active;    /* [block_count] students in the block */
    int64_t active;
    bool has_gaps; /* a student has left since the slots were last filled */

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

static int64_t teacher_of(const struct trainer *t, double norm)
{
    int64_t i = 0;
    while (i < t->teacher_count && t->teachers[i].norm != norm)
        ++i;
    return i;
}

static int allocate(struct trainer *t, struct error *err)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, rows = g->run_count * g->record_count, slots = slot_count(t);
    int64_t scratch = model_inputs_scratch(d, g->batch_size);
    if (scratch < linalg_spectral_workspace(d))
        scratch = linalg_spectral_workspace(d);
    const struct {
        double **array;
        int64_t count;
    } arrays[] = {
        {&t->directions.teacher, rng_padded(d * d)},
        {&t->directions.initial, rng_padded(d * d)},
        {&t->inputs, d * t->stride},
        {&t->scratch, scratch},
        {&t->workspace, g->in_lanes ? kernels_step_workspace(d, t->lanes) : (d + 1) * t->stride},
        {&t->targets, g->batch_size * t->lanes},
        {&t->columns, d * d},
        {&t->blocks, slots * d * d},
        {&t->factors, slots},
        {&t->norms, slots},
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
    if (!ok || t->results == NULL || t->students == NULL || t->block_active == NULL || t->teachers == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a group of %lld runs of dimension %lld",
                         (long long)g->run_count, (long long)d);
    return 0;
}

static int add_teacher(struct trainer *t, double norm, struct error *err)
{
    const int64_t d = t->group.dimension;
    struct teacher *teacher = &t->teachers[t->teacher_count++];
    teacher->norm = norm;
    teacher->columns = linalg_new(d * d);
    teacher->output = linalg_new(t->stride);
    if (teacher->columns == NULL || teacher->output == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for a teacher of dimension %lld", (long long)d);
    model_teacher(&t->directions, d, norm, teacher->columns);
    return landscape_new(t->kernels, d, teacher->columns, &teacher->landscape, err);
}

/* Run r into an empty slot, with its columns. */
static void place_run(struct trainer *t, int64_t slot, int64_t r, const double *columns)
{
    const struct train_run *run = &t->runs[r];
    const int64_t teacher = teacher_of(t, run->teacher_norm);
    ++t->teachers[teacher].active;
    t->students[slot] = (struct student){.run = r, .teacher = teacher};
    t->factors[slot] = -2 * run->step_size / (double)t->group.batch_size;
    t->norms[slot] = run->teacher_norm;
    set_columns(t, slot, columns);
    ++t->block_active[slot / t->lanes];
}

static int place_runs(struct trainer *t, struct error *err)
{
    const struct train_group *g = &t->group;
    for (int64_t slot = 0; slot < slot_count(t); ++slot)
        t->students[slot].run = -1;
    for (int64_t r = 0; r < g->run_count; ++r) {
        const struct train_run *run = &t->runs[r];
        if (teacher_of(t, run->teacher_norm) == t->teacher_count)
            TRY(add_teacher(t, run->teacher_norm, err));
        model_student(&t->directions, g->dimension, run->init_scale, run->link, t->columns);
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
    const int64_t steps = bytes / (int64_t)sizeof(double) / (dimension * batch);
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
    t->tile_max = group->in_lanes ? tile_steps(d, batch) : 1;
    t->stride = kernels_padded(t->tile_max * batch);
    /* The error costs d^2 operations a student where the step costs 4 B d^2: with few samples not at every
     * step. */
    t->check_interval = (32 + batch - 1) / batch;
    int code = allocate(t, err);
    if (code == 0) {
        model_directions(kernels, group->seed, group->replicate, d, &t->directions, t->scratch);
        code = place_runs(t, err);
    }
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
        landscape_free(t->teachers[i].landscape);
    }
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        free(t->fields[f]);
    void *arrays[] = {t->runs,
                      t->record_steps,
                      t->teachers,
                      t->directions.teacher,
                      t->directions.initial,
                      t->inputs,
                      t->scratch,
                      t->workspace,
                      t->targets,
                      t->columns,
                      t->blocks,
                      t->students,
                      t->factors,
                      t->norms,
                      t->block_active,
                      t->results,
                      t->phase_alignment,
                      t->phase_potential,
                      t->final_columns};
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
        [RECORD_BATCH_LOSS] = NAN,
        [RECORD_ERROR] = diagnostics.error,
        [RECORD_POTENTIAL] = diagnostics.potential,
        [RECORD_POTENTIAL_NORM] = diagnostics.potential_norm,
        [RECORD_ALIGNMENT] = diagnostics.alignment,
        [RECORD_GRADIENT_NORM] = diagnostics.gradient_norm,
        [RECORD_WEIGHT_NORM] = NAN,
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

/* The index of the teacher of all students of the block; -1 if they have several. */
static int64_t common_teacher(const struct trainer *t, int64_t block)
{
    int64_t teacher = -1;
    for (int64_t slot = block * t->lanes; slot < (block + 1) * t->lanes; ++slot) {
        if (t->students[slot].run < 0)
            continue;
        if (teacher >= 0 && t->students[slot].teacher != teacher)
            return -1;
        teacher = t->students[slot].teacher;
    }
    return teacher;
}

static void check_block(struct trainer *t, int64_t block, int64_t common, int64_t at, bool record)
{
    const int64_t d = t->group.dimension, first = block * t->lanes;
    const bool closer = record || at == t->group.steps - t->group.steps / 4;
    const struct kernels_fused *fused = t->kernels->fused;
    double squares[KERNELS_LANES] = {0};
    if (!t->group.in_lanes)
        squares[0] = t->kernels->squared_distance(d * d, block_of(t, block), t->teachers[common].columns);
    else if (common >= 0)
        fused->distances(d, t->teachers[common].columns, block_of(t, block), squares);
    else
        fused->distances_by_norm(d, t->directions.teacher, t->norms + first, block_of(t, block), squares);
    for (int64_t lane = 0; lane < t->lanes; ++lane) {
        const struct student *student = &t->students[first + lane];
        if (student->run >= 0 && (closer || !(squares[lane] > student->near && squares[lane] < student->far)))
            check(t, first + lane, at, record, squares[lane]);
    }
}

/* -- Steps ----------------------------------------------------------------------------------------- */

/* The inputs of the tile, and what the teachers make of them. */
static void draw_inputs(struct trainer *t)
{
    const int64_t steps = t->tile_steps;
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, batch = g->batch_size;
    const double start = stopwatch_now();
    for (int64_t s = 0; s < steps; ++s)
        model_inputs(t->kernels, g->seed, g->replicate, d, g->input, t->step + s, batch, t->stride,
                     t->scratch, t->inputs + s * batch);
    for (int64_t i = 0; i < t->teacher_count; ++i) {
        const struct teacher *teacher = &t->teachers[i];
        if (teacher->active == 0)
            continue;
        if (g->in_lanes) {
            t->kernels->fused->output(d, kernels_padded(steps * batch), t->stride, t->inputs,
                                      teacher->columns, teacher->output);
        } else {
            linalg_product(LINALG_PLAIN, batch, d, d, t->inputs, t->stride, teacher->columns, d, 0,
                           t->workspace, t->stride);
            t->kernels->relu_sum(t->stride, d, t->stride, t->workspace, teacher->output);
        }
    }
    t->times.inputs += stopwatch_now() - start;
}

/* squares [lanes]: sum of the residuals' squares. */
static void step_block(struct trainer *t, int64_t block, int64_t common, int64_t tile_step, double *squares)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, batch = g->batch_size, first = block * t->lanes,
                  sample = tile_step * batch;
    if (g->in_lanes) {
        struct kernels_step step = {.dimension = d,
                                    .batch = batch,
                                    .stride = t->stride,
                                    .inputs = t->inputs + sample,
                                    .target = t->targets,
                                    .target_lanes = t->lanes,
                                    .factor = t->factors + first,
                                    .students = block_of(t, block),
                                    .workspace = t->workspace,
                                    .squares = squares};
        if (common >= 0) {
            step.target = t->teachers[common].output + sample;
            step.target_lanes = 1;
        } else {
            for (int64_t lane = 0; lane < t->lanes; ++lane) {
                const double *output = t->teachers[t->students[first + lane].teacher].output;
                for (int64_t n = 0; n < batch; ++n)
                    t->targets[n * t->lanes + lane] = output[sample + n];
            }
        }
        t->kernels->fused->step(&step);
        return;
    }
    double *z = t->workspace, *residual = z + d * t->stride, *student = block_of(t, block);
    linalg_product(LINALG_PLAIN, batch, d, d, t->inputs, t->stride, student, d, 0, z, t->stride);
    t->kernels->gate(t->stride, d, t->stride, t->factors[first], t->teachers[common].output, z, residual);
    *squares = t->kernels->dot(batch, residual, residual);
    if (!t->students[first].leaving)
        linalg_product(LINALG_TRANSPOSED, d, d, batch, t->inputs, t->stride, z, t->stride, 1, student, d);
}

/* A block's steps of a tile with no record in it. */
static void train_block(struct trainer *t, int64_t block)
{
    const int64_t quarter = t->group.steps - t->group.steps / 4;
    double squares[KERNELS_LANES];
    if (t->block_active[block] == 0)
        return;
    const int64_t common = common_teacher(t, block);
    for (int64_t s = 0; s < t->tile_steps && t->block_active[block] > 0; ++s) {
        const int64_t at = t->step + s;
        if (at % t->check_interval == 0 || at == quarter)
            check_block(t, block, common, at, false);
        if (t->block_active[block] > 0)
            step_block(t, block, common, s, squares);
    }
}

/* A block's step of a record. */
static void record_block(struct trainer *t, int64_t block)
{
    const struct train_group *g = &t->group;
    double *batch_loss = t->fields[RECORD_BATCH_LOSS], squares[KERNELS_LANES];
    if (t->block_active[block] == 0)
        return;
    const int64_t common = common_teacher(t, block);
    check_block(t, block, common, t->step, true);
    if (t->step < g->steps || batch_loss != NULL)
        step_block(t, block, common, 0, squares);
    for (int64_t lane = 0; lane < t->lanes; ++lane) {
        const int64_t slot = block * t->lanes + lane;
        const struct student *student = &t->students[slot];
        if (student->run < 0)
            continue;
        if (batch_loss != NULL)
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
        t->norms[to] = t->norms[from];
        ++t->block_active[to / t->lanes];
        ++t->teachers[t->students[to].teacher].active;
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
    const double step = cost_step(g->dimension, g->batch_size, g->in_lanes),
                 record = cost_record(g->dimension);
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
    weights_as_rows(t->group.dimension, t->teachers[teacher_of(t, t->runs[run].teacher_norm)].columns, 1,
                    ret);
}
