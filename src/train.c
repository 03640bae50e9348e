#include "sgdmap/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/grid.h"
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
    double *output;  /* [stride] f*(x_n) of this step */
    struct landscape *landscape;
};

/* A run while it is trained. */
struct student {
    int64_t run;
    int64_t teacher;
    double factor; /* -2 eta / B */
    double first_error;
    double quarter_error; /* at the beginning of the last quarter */
    bool leaving;         /* ends with this step, which it sees for its record only */
};

struct trainer {
    const struct kernels *kernels;
    struct train_group group;
    struct train_run *runs;
    int64_t *record_steps;

    int64_t stride; /* of samples: the batch, padded from eight on */
    int64_t width;  /* students a panel */
    int64_t panel_count;
    int64_t check_interval;
    bool compacts;

    int64_t teacher_count;
    struct teacher *teachers;
    struct model_directions directions;
    double *inputs;   /* X [d][stride] */
    double *scratch;  /* the inputs' stream, and the spectral norm's workspace */
    double *outputs;  /* Z, then M: [width * d][stride] */
    double *residual; /* [stride] */
    double *weights;  /* W of one student [d][d], for its norm */

    double **panels;          /* [panel_count]: A [width * d][d] */
    struct student *students; /* [panel_count * width] by slot; run < 0: an empty slot */
    int64_t *panel_active;    /* [panel_count] students in the panel */
    int64_t active;
    int64_t leaving; /* students that end with this step */

    int64_t step;
    int64_t next_record; /* index of the first record not yet taken */
    double *fields[RECORD_FIELD_COUNT];
    double *phase_alignment,
        *phase_potential; /* [run_count][record_count], also where the fields are not wanted */
    struct run_result *results;
    double *final_columns; /* [run_count][d][d] A at the end */

    double clock;        /* when `share` was last brought up to date */
    double share;        /* seconds that a run that is active since the start has had */
    double steps_behind; /* steps done or saved, over all runs */
};

static double *student_columns(const struct trainer *t, int64_t slot)
{
    int64_t d = t->group.dimension;
    return t->panels[slot / t->width] + slot % t->width * d * d;
}

/* -- Construction ---------------------------------------------------------------------------------- */

/* Numbers of very different size, so that sums of their products round differently in nearly every other order. */
static void spread_sizes(int64_t count, double *values)
{
    for (int64_t i = 0; i + 1 < count; ++i)
        values[i] = ldexp(values[i], (int)(8 * values[i + 1]));
}

static bool slots_are_equal(const struct trainer *t, int64_t size, const double *students)
{
    for (int64_t slot = 1; slot < t->width; ++slot)
        if (memcmp(students, students + slot * size, (size_t)size * sizeof *students) != 0)
            return false;
    return true;
}

/* Does BLIS compute all columns of this panel's two products alike, whatever their place? Then a student's bits do not depend
 * on its slot. Tried on panels of equal students, adding to something and to zero, several times. The answer depends on
 * the shape and on BLIS alone. */
static bool columns_are_alike(const struct trainer *t, double *panel)
{
    enum { TRIALS = 8 };
    const int64_t d = t->group.dimension, batch = t->group.batch_size, columns = t->width * d;
    const struct rng_key key = rng_key(0, 0, d, RNG_SPECTRAL);
    bool alike = true;
    for (uint64_t trial = 0; alike && trial < TRIALS; ++trial) {
        model_inputs(t->kernels, 0, 0, d, INPUT_GAUSSIAN, (int64_t)trial, batch, t->stride, t->scratch,
                     t->inputs);
        spread_sizes(d * t->stride, t->inputs);
        rng_normals(t->kernels, key, trial, d * d, t->scratch);
        spread_sizes(d * d, t->scratch);
        for (int64_t slot = 0; slot < t->width; ++slot)
            memcpy(panel + slot * d * d, t->scratch, (size_t)(d * d) * sizeof *panel);
        linalg_product(LINALG_PLAIN, batch, columns, d, t->inputs, t->stride, panel, d, 0, t->outputs,
                       t->stride);
        alike = slots_are_equal(t, d * t->stride, t->outputs);
        if (trial % 2 == 1)
            memset(panel, 0, (size_t)(columns * d) * sizeof *panel);
        linalg_product(LINALG_TRANSPOSED, d, columns, batch, t->inputs, t->stride, t->outputs, t->stride, 1,
                       panel, d);
        alike = alike && slots_are_equal(t, d * d, panel);
    }
    memset(t->inputs, 0, (size_t)(d * t->stride) * sizeof *t->inputs);
    memset(t->outputs, 0, (size_t)(columns * t->stride) * sizeof *t->outputs);
    memset(panel, 0, (size_t)(columns * d) * sizeof *panel);
    return alike;
}

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
    const int64_t d = g->dimension, rows = g->run_count * g->record_count;
    int64_t scratch = rng_padded(g->batch_size * d);
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
        {&t->outputs, t->width * d * t->stride},
        {&t->residual, t->stride},
        {&t->weights, d * d},
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
    t->students = calloc((size_t)(t->panel_count * t->width), sizeof *t->students);
    t->panel_active = calloc((size_t)t->panel_count, sizeof *t->panel_active);
    t->panels = calloc((size_t)t->panel_count, sizeof *t->panels);
    t->teachers = calloc((size_t)g->run_count, sizeof *t->teachers);
    ok = ok && t->results != NULL && t->students != NULL && t->panel_active != NULL && t->panels != NULL &&
         t->teachers != NULL;
    for (int64_t p = 0; ok && p < t->panel_count; ++p)
        ok = (t->panels[p] = linalg_new(t->width * d * d)) != NULL;
    if (!ok)
        return error_set(err, ERROR_MEMORY, "out of memory for a group of %lld runs of dimension %lld",
                         (long long)g->run_count, (long long)d);
    return 0;
}

static int place_runs(struct trainer *t, struct error *err)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    for (int64_t slot = 0; slot < t->panel_count * t->width; ++slot)
        t->students[slot].run = -1;
    for (int64_t r = 0; r < g->run_count; ++r) {
        const struct train_run *run = &t->runs[r];
        int64_t index = teacher_of(t, run->teacher_norm);
        struct teacher *teacher = &t->teachers[index];
        if (index == t->teacher_count) {
            ++t->teacher_count;
            teacher->norm = run->teacher_norm;
            teacher->columns = linalg_new(d * d);
            teacher->output = linalg_new(t->stride);
            if (teacher->columns == NULL || teacher->output == NULL)
                return error_set(err, ERROR_MEMORY, "out of memory for a teacher of dimension %lld",
                                 (long long)d);
            model_teacher(&t->directions, d, teacher->norm, teacher->columns);
            TRY(landscape_new(t->kernels, d, teacher->columns, &teacher->landscape, err));
        }
        ++teacher->active;
        /* Where columns are alike the slots are filled without gaps. */
        int64_t slot = t->compacts ? r : run->slot;
        t->students[slot] = (struct student){
            .run = r, .teacher = index, .factor = -2 * run->step_size / (double)g->batch_size};
        model_student(&t->directions, d, run->init_scale, run->link, student_columns(t, slot));
        ++t->panel_active[slot / t->width];
        t->results[r] = (struct run_result){.outcome = OUTCOME_RUNNING,
                                            .converged_step = -1,
                                            .phase2_step = -1,
                                            .final_error = NAN,
                                            .final_loss = NAN};
    }
    t->active = g->run_count;
    return 0;
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
    int64_t slots = 0;
    for (int64_t r = 0; r < group->run_count; ++r)
        slots = group->runs[r].slot >= slots ? group->runs[r].slot + 1 : slots;
    t->stride = batch >= KERNELS_LANES ? kernels_padded(batch) : batch;
    t->width = panel_width(d, batch);
    t->panel_count = (slots + t->width - 1) / t->width;
    /* The error costs d^2 operations a student where the step costs 4 B d^2: with few samples not at every
     * step. */
    t->check_interval = (16 + batch - 1) / batch;
    int code = allocate(t, err);
    if (code == 0) {
        model_directions(kernels, group->seed, group->replicate, d, &t->directions, t->scratch);
        t->compacts = t->width > 1 && columns_are_alike(t, t->panels[0]);
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
    for (int64_t p = 0; t->panels != NULL && p < t->panel_count; ++p)
        free(t->panels[p]);
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        free(t->fields[f]);
    void *arrays[] = {t->runs,        t->record_steps,    t->teachers,        t->directions.teacher,
                      t->inputs,      t->scratch,         t->outputs,         t->directions.initial,
                      t->residual,    t->weights,         t->panels,          t->students,
                      t->results,     t->phase_alignment, t->phase_potential, t->final_columns,
                      t->panel_active};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; ++i)
        free(arrays[i]);
    free(t);
}

/* -- What happens at a step ------------------------------------------------------------------------ */

static void bring_clock_up(struct trainer *t)
{
    double time = stopwatch_now();
    if (t->active > 0)
        t->share += (time - t->clock) / (double)t->active;
    t->clock = time;
}

/* Takes the student out of its slot, which is empty (and zero, so that nothing grows there) afterwards. */
static void leave(struct trainer *t, int64_t slot)
{
    const int64_t d = t->group.dimension;
    struct student *student = &t->students[slot];
    struct run_result *result = &t->results[student->run];
    bring_clock_up(t);
    result->wall_time = t->share;
    result->steps_done = t->step;
    memcpy(t->final_columns + student->run * d * d, student_columns(t, slot),
           (size_t)(d * d) * sizeof(double));
    const int64_t row = student->run * t->group.record_count;
    /* Records that it reached: those taken so far. */
    int64_t phase2 = record_phase2(t->phase_alignment + row, t->phase_potential + row, t->next_record, d);
    result->phase2_step = phase2 < 0 ? -1 : t->record_steps[phase2];
    memset(student_columns(t, slot), 0, (size_t)(d * d) * sizeof(double));
    t->steps_behind += (double)(t->group.steps - t->step);
    --t->teachers[student->teacher].active;
    student->run = -1;
    --t->panel_active[slot / t->width];
    --t->active;
}

/* The diagnostics at the present weights; also into the record's row if there is one to take. */
static double measure(struct trainer *t, int64_t slot, bool record)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    struct student *student = &t->students[slot];
    const double *columns = student_columns(t, slot);
    struct diagnostics diagnostics;
    landscape_measure(t->teachers[student->teacher].landscape, columns, &diagnostics, NULL);
    if (!record)
        return diagnostics.loss;
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
    for (int f = 0; f < RECORD_FIELD_COUNT; ++f)
        if (t->fields[f] != NULL)
            t->fields[f][at] = values[f];
    t->phase_alignment[at] = diagnostics.alignment;
    t->phase_potential[at] = diagnostics.potential_norm;
    if (t->fields[RECORD_WEIGHT_NORM] != NULL) {
        memcpy(t->weights, columns, (size_t)(d * d) * sizeof *columns);
        for (int64_t j = 0; j < d && t->runs[student->run].link == LINK_IDENTITY; ++j)
            t->weights[j * d + j] -= 1;
        t->fields[RECORD_WEIGHT_NORM][at] = linalg_spectral_norm(t->kernels, d, t->weights, d, t->scratch);
    }
    return diagnostics.loss;
}

/* Looks at a student that has arrived at t->step: has it ended here? */
static void check(struct trainer *t, int64_t slot, bool record)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    struct student *student = &t->students[slot];
    struct run_result *result = &t->results[student->run];
    const bool last = t->step == g->steps;
    const double *target = t->teachers[student->teacher].columns;
    const double error =
        sqrt(t->kernels->squared_distance(d * d, student_columns(t, slot), target) / (double)d);
    if (t->step == 0)
        student->first_error = error;
    if (t->step == g->steps - g->steps / 4)
        student->quarter_error = error;

    enum outcome outcome = OUTCOME_RUNNING;
    if (error <= g->tolerance)
        outcome = OUTCOME_CONVERGED;
    else if (!(error <= 1e3 * fmax(1, student->first_error)))
        outcome = OUTCOME_DIVERGED;
    else if (last)
        outcome = error > 0.99 * student->quarter_error ? OUTCOME_STALLED : OUTCOME_UNFINISHED;

    const bool ends = outcome != OUTCOME_RUNNING;
    if (!ends && !record)
        return;
    double loss = measure(t, slot, record);
    if (!ends)
        return;
    result->outcome = outcome;
    result->converged_step = outcome == OUTCOME_CONVERGED ? t->step : -1;
    result->final_error = error;
    result->final_loss = loss;
    student->leaving = true;
    ++t->leaving;
}

static void remove_leaving(struct trainer *t)
{
    if (t->leaving == 0)
        return;
    t->leaving = 0;
    for (int64_t slot = 0; slot < t->panel_count * t->width; ++slot)
        if (t->students[slot].run >= 0 && t->students[slot].leaving)
            leave(t, slot);
    if (!t->compacts)
        return;
    const int64_t d = t->group.dimension;
    for (int64_t to = 0, from = t->panel_count * t->width - 1;;) {
        while (to < from && t->students[to].run >= 0)
            ++to;
        while (from > to && t->students[from].run < 0)
            --from;
        if (to >= from)
            return;
        memcpy(student_columns(t, to), student_columns(t, from), (size_t)(d * d) * sizeof(double));
        memset(student_columns(t, from), 0, (size_t)(d * d) * sizeof(double));
        t->students[to] = t->students[from];
        t->students[from].run = -1;
        ++t->panel_active[to / t->width];
        --t->panel_active[from / t->width];
    }
}

static void draw_batch(struct trainer *t)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension;
    model_inputs(t->kernels, g->seed, g->replicate, d, g->input, t->step, g->batch_size, t->stride,
                 t->scratch, t->inputs);
    /* A product a teacher, each of the same shape, so that a run does not see which others are in its group.
     */
    for (int64_t i = 0; i < t->teacher_count; ++i) {
        if (t->teachers[i].active == 0)
            continue;
        linalg_product(LINALG_PLAIN, g->batch_size, d, d, t->inputs, t->stride, t->teachers[i].columns, d, 0,
                       t->outputs, t->stride);
        t->kernels->relu_sum(t->stride, d, t->stride, t->outputs, t->teachers[i].output);
    }
}

static void step_panel(struct trainer *t, int64_t panel, bool record)
{
    const struct train_group *g = &t->group;
    const int64_t d = g->dimension, batch = g->batch_size, columns = t->width * d;
    const bool last = t->step == g->steps;
    linalg_product(LINALG_PLAIN, batch, columns, d, t->inputs, t->stride, t->panels[panel], d, 0, t->outputs,
                   t->stride);
    for (int64_t place = 0; place < t->width; ++place) {
        struct student *student = &t->students[panel * t->width + place];
        if (student->run < 0)
            continue;
        t->kernels->gate(t->stride, d, t->stride, student->leaving ? 0 : student->factor,
                         t->teachers[student->teacher].output, t->outputs + place * d * t->stride,
                         t->residual);
        if (record && t->fields[RECORD_BATCH_LOSS] != NULL)
            t->fields[RECORD_BATCH_LOSS][student->run * g->record_count + t->next_record] =
                t->kernels->dot(batch, t->residual, t->residual) / (double)batch;
    }
    if (!last)
        linalg_product(LINALG_TRANSPOSED, d, columns, batch, t->inputs, t->stride, t->outputs, t->stride, 1,
                       t->panels[panel], d);
}

static void one_step(struct trainer *t)
{
    const struct train_group *g = &t->group;
    const int64_t slots = t->panel_count * t->width;
    const bool record = t->next_record < g->record_count && t->record_steps[t->next_record] == t->step;
    const bool last = t->step == g->steps;
    if (record || last || t->step % t->check_interval == 0 || t->step == g->steps - g->steps / 4)
        for (int64_t slot = 0; slot < slots; ++slot)
            if (t->students[slot].run >= 0)
                check(t, slot, record);
    /* At a record even those that end here take part in the forward pass, for their batch_loss. */
    if (!record)
        remove_leaving(t);
    if (t->active == 0)
        return;
    draw_batch(t);
    for (int64_t panel = 0; panel < t->panel_count; ++panel)
        if (t->panel_active[panel] > 0)
            step_panel(t, panel, record);
    if (record) {
        ++t->next_record;
        remove_leaving(t);
    }
    t->steps_behind += (double)t->active;
    ++t->step;
}

bool trainer_advance(struct trainer *t, double seconds)
{
    t->clock = stopwatch_now();
    const double end = t->clock + seconds;
    while (t->active > 0) {
        one_step(t);
        if (stopwatch_now() >= end)
            break;
    }
    bring_clock_up(t);
    return t->active == 0;
}

/* -- Results --------------------------------------------------------------------------------------- */

double trainer_progress(const struct trainer *t)
{
    double all = (double)t->group.steps * (double)t->group.run_count;
    return t->active == 0 ? 1 : fmin(1, t->steps_behind / all);
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

bool trainer_compacts(const struct trainer *t)
{
    return t->compacts;
}
