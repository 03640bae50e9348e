/* sgdmap verify: every run's checksum and the file's shape. sgdmap replay: one run again, bit by bit. */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sgdmap/command.h"
#include "sgdmap/kernels.h"
#include "sgdmap/store.h"
#include "sgdmap/task.h"

/* The one option that both have. Returns an exit status, or -1 to go on. */
static int parse(int argc, char **argv, int operands, const char *what, const char *usage)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    struct error unknown = {0};
    if (command_check_options(argc, argv, options, &unknown) != 0)
        return command_fail(&unknown);
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option != 'h')
            return command_usage_error(argv[0], "%s: unknown option", argv[optind - 1]);
        puts(usage);
        return 0;
    }
    if (argc - optind != operands)
        return command_usage_error(argv[0], "%s expected, there are %d arguments", what, argc - optind);
    return -1;
}

/* -- verify ---------------------------------------------------------------------------------------- */

/* Neighbours on one line. */
static void name_damaged(int64_t first, int64_t end)
{
    if (end - first == 1)
        printf("run %" PRId64 ": damaged\n", first);
    else if (end > first)
        printf("runs %" PRId64 " to %" PRId64 ": damaged\n", first, end - 1);
}

static int verify(const char *path, struct error *err)
{
    enum { BLOCK = 4096 };
    struct config config;
    struct grid grid;
    struct store *store;
    TRY(store_open_read(path, &config, &grid, &store, err));
    uint8_t states[BLOCK];
    char shard[COMMAND_TEXT_SIZE];
    int64_t counts[3] = {0}, damaged = 0; /* the first of the neighbours seen last that are damaged */
    int64_t stray = -1;                   /* a run of another shard */
    int code = 0;
    for (int64_t first = 0; code == 0 && first < grid.run_count; first += BLOCK) {
        const int64_t rest = grid.run_count - first, count = rest < BLOCK ? rest : BLOCK;
        code = store_check(store, first, count, states, err);
        for (int64_t i = 0; code == 0 && i < count; ++i) {
            const bool ours = grid_has_run(&grid, first + i);
            counts[states[i]] += ours || states[i] == STORE_MISMATCH;
            if (states[i] == STORE_DONE && !ours)
                stray = first + i;
            if (states[i] == STORE_MISMATCH)
                continue;
            name_damaged(damaged, first + i);
            damaged = first + i + 1;
        }
    }
    if (code == 0)
        name_damaged(damaged, grid.run_count);
    struct error frame = {0};
    const int frame_code = code == 0 ? store_check_frame(store, &frame) : 0;
    if (code == 0) {
        printf("%s: ", path);
        if (grid.shard_count > 1)
            printf("shard %s of %" PRId64 " runs: ", command_shard(&grid, shard), grid.run_count);
        printf("%" PRId64 " runs: %" PRId64 " done and sound, %" PRId64 " not done, %" PRId64 " damaged\n",
               grid.shard_runs, counts[STORE_DONE], counts[STORE_NOT_DONE], counts[STORE_MISMATCH]);
        if (counts[STORE_MISMATCH] > 0)
            code =
                error_set(err, ERROR_IO,
                          "%s: %" PRId64 " runs are damaged; `sgdmap run` with its config trains them again",
                          path, counts[STORE_MISMATCH]);
        else if (stray >= 0)
            code =
                error_set(err, ERROR_IO,
                          "%s: run %" PRId64 " is done and belongs to another shard than %s: the attribute "
                          "shard is damaged",
                          path, stray, command_shard(&grid, shard));
    }
    if (frame_code != 0) {
        if (code == 0)
            *err = frame;
        else
            printf("%s\n", frame.message);
        code = code != 0 ? code : frame_code;
    }
    struct error close_error;
    int closed = store_close(store, code == 0 ? err : &close_error);
    grid_done(&grid);
    config_done(&config);
    return code != 0 ? code : closed;
}

int command_verify(int argc, char **argv)
{
    int status = parse(
        argc, argv, 1, "one FILE is",
        "usage: sgdmap verify FILE\n\n"
        "Checks every run against its checksum and the file against its config, and names the runs that are\n"
        "damaged. `sgdmap run` with the same config trains them again.\n\n"
        "Found is every changed byte in the settings, in the scales, in units and flags, and in the rows, "
        "results,\n"
        "status and checksum of the runs that are done. Not covered: wall_time and rank, rows of runs that "
        "are not\n"
        "done, and texts that only tell of the origin (history, host, versions).\n\n"
        "Exit status 0: all that is done is sound; 74: not so.");
    if (status >= 0)
        return status;
    struct error err = {0};
    return verify(argv[optind], &err) != 0 ? command_fail(&err) : 0;
}

/* -- replay ---------------------------------------------------------------------------------------- */

struct comparison {
    int64_t values, different;
    char first[256]; /* the first difference */
};

/* Equal bits, where one NaN is as good as another: the file's fill value stands for those that were never
 * computed. */
static void compare(struct comparison *c, const char *name, int64_t at, double stored, double again)
{
    ++c->values;
    uint64_t bits[2];
    memcpy(&bits[0], &stored, sizeof stored);
    memcpy(&bits[1], &again, sizeof again);
    if (bits[0] == bits[1] || (isnan(stored) && isnan(again)))
        return;
    if (c->different++ == 0)
        snprintf(c->first, sizeof c->first, "%s[%" PRId64 "]: %.17g in the file, %.17g now", name, at, stored,
                 again);
}

static int compare_fields(struct store *store, const struct config *config, int64_t run,
                          const struct trainer *trainer, struct comparison *c, struct error *err)
{
    double *stored = calloc((size_t)config->record_count, sizeof *stored);
    if (stored == NULL)
        return error_set(err, ERROR_MEMORY, "replay: out of memory");
    int code = 0;
    for (int f = 0; code == 0 && f < RECORD_FIELD_COUNT; ++f) {
        const double *again = trainer_field(trainer, (enum record_field)f);
        if (again == NULL)
            continue;
        code = store_read_field(store, (enum record_field)f, run, 1, stored, err);
        for (int64_t k = 0; code == 0 && k < config->record_count; ++k)
            compare(c, record_field_info((enum record_field)f)->name, k, stored[k], again[k]);
    }
    free(stored);
    return code;
}

static int compare_weights(struct store *store, int64_t run, int64_t dimension, const struct trainer *trainer,
                           struct comparison *c, struct error *err)
{
    const int64_t square = dimension * dimension;
    double *stored = calloc((size_t)(2 * square), sizeof *stored),
           *again = calloc((size_t)(2 * square), sizeof *again);
    int code = stored == NULL || again == NULL ? error_set(err, ERROR_MEMORY, "replay: out of memory") : 0;
    if (code == 0)
        code = store_read_weights(store, run, stored, stored + square, err);
    if (code == 0) {
        trainer_student(trainer, 0, again);
        trainer_teacher(trainer, 0, again + square);
        for (int64_t i = 0; i < 2 * square; ++i)
            compare(c, i < square ? "student" : "teacher", i % square, stored[i], again[i]);
    }
    free(stored);
    free(again);
    return code;
}

static int train_alone(const struct config *config, const struct grid *grid, int64_t run, struct task *ret,
                       struct error *err)
{
    struct group group;
    const int64_t index = grid_group_of(grid, run);
    grid_group(grid, index, &group);
    uint8_t *wanted = calloc((size_t)group.run_count, 1);
    if (wanted == NULL)
        return error_set(err, ERROR_MEMORY, "replay: out of memory");
    wanted[run - group.first_run] = 1;
    int code = task_init(kernels_select(NULL), config, grid, index, wanted, ret, err);
    free(wanted);
    while (code == 0 && !trainer_advance(ret->trainer, 1))
        ;
    return code;
}

static int replay_open(struct store *store, const struct config *config, const struct grid *grid,
                       const char *path, int64_t run, struct comparison *c, struct error *err)
{
    uint8_t state;
    struct run_result stored;
    struct setting setting;
    grid_setting(grid, run, &setting);
    TRY(store_check(store, run, 1, &state, err));
    TRY(store_read_results(store, run, 1, &stored, err));
    char shard[COMMAND_TEXT_SIZE];
    if (!grid_has_run(grid, run))
        return error_set(err, ERROR_ARGUMENT, "%s: run %" PRId64 " is not in it: it holds shard %s alone",
                         path, run, command_shard(grid, shard));
    if (state == STORE_NOT_DONE || stored.outcome == OUTCOME_FAILED)
        return error_set(err, ERROR_ARGUMENT, "%s: run %" PRId64 " is %s: there is nothing to compare with",
                         path, run, outcome_name(stored.outcome));
    printf("run %" PRId64 ": d = %" PRId64 ", B = %" PRId64
           ", step_size %.6g, init_scale %.6g, teacher_norm %.6g, link %s, input %s",
           run, setting.dimension, setting.batch_size, setting.step_size, setting.init_scale,
           setting.teacher_norm, link_kind_name(setting.link), input_kind_name(setting.input));
    static const enum axis_id later[] = {AXIS_GRADIENT, AXIS_DATA, AXIS_TEACHER, AXIS_NOISE, AXIS_SCHEDULE};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        char value[32];
        if (config_has_axis(config, later[i]))
            printf(", %s %s", axis_name(later[i]),
                   axis_value_text(later[i], setting_value(&setting, later[i]), value));
    }
    printf(", replicate %" PRId64 "\n", setting.replicate);
    if (state == STORE_MISMATCH)
        puts("its checksum does not match: it is damaged");

    linalg_setup();
    char *family = store_attribute(store, "blis_kernels");
    if (family != NULL)
        command_plain(family);
    if (family != NULL && strcmp(family, linalg_kernel_family()) != 0)
        printf("the file was written with BLIS's %s kernels, this is %s: bits may differ\n", family,
               linalg_kernel_family());
    free(family);
    struct task task = {0};
    int code = train_alone(config, grid, run, &task, err);
    if (code == 0) {
        const struct run_result *again = trainer_results(task.trainer);
        printf("%s at step %" PRId64 ", error %.6g, loss %.6g\n", outcome_name(again->outcome),
               again->steps_done, again->final_error, again->final_loss);
        compare(c, "status", 0, stored.outcome, again->outcome);
        compare(c, "steps_done", 0, (double)stored.steps_done, (double)again->steps_done);
        compare(c, "converged_step", 0, (double)stored.converged_step, (double)again->converged_step);
        compare(c, "phase2_step", 0, (double)stored.phase2_step, (double)again->phase2_step);
        compare(c, "final_error", 0, stored.final_error, again->final_error);
        compare(c, "final_loss", 0, stored.final_loss, again->final_loss);
        code = compare_fields(store, config, run, task.trainer, c, err);
        if (code == 0 && config->weights == WEIGHTS_FINAL)
            code = compare_weights(store, run, setting.dimension, task.trainer, c, err);
    }
    task_done(&task);
    return code;
}

static int replay(const char *path, const char *number, struct comparison *c, struct error *err)
{
    struct config config;
    struct grid grid;
    struct store *store;
    TRY(store_open_read(path, &config, &grid, &store, err));
    char *end;
    const long long run = strtoll(number, &end, 10);
    int code = 0;
    if (*number == '\0' || *end != '\0' || run < 0 || run >= grid.run_count)
        code = error_set(err, ERROR_ARGUMENT, "replay: RUN: %s is not in [0, %" PRId64 "]", number,
                         grid.run_count - 1);
    if (code == 0)
        code = replay_open(store, &config, &grid, path, run, c, err);
    struct error close_error;
    int closed = store_close(store, code == 0 ? err : &close_error);
    grid_done(&grid);
    config_done(&config);
    return code != 0 ? code : closed;
}

int command_replay(int argc, char **argv)
{
    int status = parse(
        argc, argv, 2, "FILE and RUN are",
        "usage: sgdmap replay FILE RUN\n\n"
        "Trains run number RUN again from what FILE says alone, and compares every stored value bit by bit.\n"
        "Exit status 0: the same bits; 1: not so.");
    if (status >= 0)
        return status;
    struct error err = {0};
    struct comparison c = {0};
    if (replay(argv[optind], argv[optind + 1], &c, &err) != 0)
        return command_fail(&err);
    if (c.different == 0) {
        printf("the same bits in all %" PRId64 " values\n", c.values);
        return 0;
    }
    printf("%" PRId64 " of %" PRId64 " values differ; the first: %s\n", c.different, c.values, c.first);
    return 1;
}
