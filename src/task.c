#include "sgdmap/task.h"

#include <stdlib.h>

#include "sgdmap/record.h"

static int make_trainer(const struct kernels *kernels, const struct config *config, const struct grid *grid,
                        struct task *task, int64_t *steps, struct train_run *list, struct error *err)
{
    struct setting setting;
    record_steps(config->steps, config->record_count, steps);
    for (int64_t i = 0; i < task->run_count; ++i) {
        grid_setting(grid, task->runs[i], &setting);
        list[i] = (struct train_run){.step_size = setting.step_size,
                                     .init_scale = setting.init_scale,
                                     .teacher_norm = setting.teacher_norm,
                                     .link = setting.link,
                                     .teacher = setting.teacher,
                                     .noise = setting.noise,
                                     .schedule = setting.schedule};
    }
    grid_setting(grid, task->group.first_run, &setting);
    const struct cost_shape *shape = &grid->blocks[grid_block_of(grid, task->group.index)].shape;
    const struct train_group group = {.dimension = setting.dimension,
                                      .batch_size = shape->batch_size,
                                      .gradient = setting.gradient,
                                      .data = setting.data,
                                      .input = setting.input,
                                      .in_lanes = shape->in_lanes,
                                      .seed = config->seed,
                                      .replicate = setting.replicate,
                                      .steps = config->steps,
                                      .tolerance = config->tolerance,
                                      .test_samples = config->test_samples,
                                      .teacher_rank = config->teacher_rank,
                                      .decay = config->decay,
                                      .record_count = config->record_count,
                                      .record_steps = steps,
                                      .fields = config->fields,
                                      .run_count = task->run_count,
                                      .runs = list};
    return trainer_new(kernels, &group, &task->trainer, err);
}

int task_init(const struct kernels *kernels, const struct config *config, const struct grid *grid,
              int64_t group, const uint8_t *wanted, struct task *ret, struct error *err)
{
    *ret = (struct task){0};
    grid_group(grid, group, &ret->group);
    const size_t most = (size_t)ret->group.run_count;
    ret->runs = calloc(most, sizeof *ret->runs);
    if (ret->runs == NULL)
        return error_set(err, ERROR_MEMORY, "out of memory for the list of a group's runs");
    for (int64_t i = 0; i < ret->group.run_count; ++i)
        if (wanted == NULL || wanted[i])
            ret->runs[ret->run_count++] = ret->group.first_run + i;
    if (ret->run_count == 0)
        return 0;

    struct train_run *list = calloc((size_t)ret->run_count, sizeof *list);
    int64_t *steps = calloc((size_t)config->record_count, sizeof *steps);
    int code = list == NULL || steps == NULL
                   ? error_set(err, ERROR_MEMORY, "out of memory for the settings of a group's runs")
                   : make_trainer(kernels, config, grid, ret, steps, list, err);
    free(list);
    free(steps);
    return code;
}

void task_done(struct task *task)
{
    trainer_free(task->trainer);
    free(task->runs);
    *task = (struct task){0};
}
