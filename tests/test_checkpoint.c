/* checkpoint: what is saved comes back, and what a disk or another program has made of it is refused. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "sgdmap/checkpoint.h"
#include "sgdmap/linalg.h"

static const char text[] =
    "seed: 1\ngrid: {dimension: 6, step_size: {log: [0.001, 1], count: 12}, init_scale: 1, teacher_norm: "
    "[0.5, 1], batch_size: 20}\ntraining: {steps: 300, tolerance: 1e-2}\nrecords: {count: 12}\n";

struct fixture {
    char folder[64], output[96];
    struct config config;
    struct grid grid;
    struct checkpoints checkpoints;
};

static void init_checkpoints(struct fixture *f, const char *program, const char *kernels)
{
    struct error err = {0};
    if (checkpoints_init(f->output, program, kernels, &f->config, &f->checkpoints, &err) != 0)
        fail_msg("%s", err.message);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct error err = {0};
    linalg_setup();
    if (f == NULL)
        return 1;
    snprintf(f->folder, sizeof f->folder, "/tmp/test_checkpoint.XXXXXX");
    if (mkdtemp(f->folder) == NULL || config_parse("test", text, strlen(text), NULL, &f->config, &err) != 0 ||
        grid_expand(&f->config, &f->grid, &err) != 0)
        return 1;
    snprintf(f->output, sizeof f->output, "%s/sweep.h5", f->folder);
    init_checkpoints(f, "program 1", "skx, avx512");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    checkpoints_clear(&f->checkpoints);
    checkpoints_done(&f->checkpoints);
    grid_done(&f->grid);
    config_done(&f->config);
    int status = rmdir(f->folder); /* nothing is left behind */
    free(f);
    return status;
}

static struct task begin(const struct fixture *f, const uint8_t *wanted)
{
    struct task task;
    struct error err = {0};
    if (task_init(kernels_select(NULL), &f->config, &f->grid, 0, wanted, &task, &err) != 0)
        fail_msg("%s", err.message);
    return task;
}

static struct task begin_and_train(const struct fixture *f, int slices)
{
    struct task task = begin(f, NULL);
    for (int i = 0; i < slices; ++i)
        assert_false(trainer_advance(task.trainer, 0));
    return task;
}

static void save(const struct fixture *f, const struct task *task)
{
    struct error err = {0};
    if (checkpoint_save(&f->checkpoints, task, &err) != 0)
        fail_msg("%s", err.message);
}

static void path_of(const struct fixture *f, char ret[256])
{
    snprintf(ret, 256, "%s/0.checkpoint", f->checkpoints.folder);
}

/* The error's message, "" if there is none. */
static const char *restore(const struct fixture *f, struct task *task, bool *restored)
{
    static struct error err;
    err = (struct error){0};
    int code = checkpoint_restore(&f->checkpoints, task, restored, &err);
    assert_true((code != 0) == (err.message[0] != '\0'));
    assert_true(code == 0 || !*restored);
    return err.message;
}

static void assert_refused(const struct fixture *f, const char *why)
{
    bool restored;
    struct task task = begin(f, NULL);
    const char *message = restore(f, &task, &restored);
    if (strstr(message, why) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", why, message);
    assert_true(trainer_progress(task.trainer).done == 0);
    task_done(&task);
}

static void what_is_saved_comes_back(void **state)
{
    struct fixture *f = *state;
    bool restored;
    struct task task = begin_and_train(f, 40);
    save(f, &task);
    /* All of it, and every other run. */
    uint8_t wanted[64] = {0};
    for (int i = 1; i < 24; i += 2)
        wanted[i] = 1;
    struct task again = begin(f, NULL), some = begin(f, wanted);
    assert_string_equal(restore(f, &again, &restored), "");
    assert_true(restored && trainer_progress(again.trainer).done > 0);
    assert_string_equal(restore(f, &some, &restored), "");
    assert_true(restored && some.run_count == 12);
    while (!trainer_advance(task.trainer, 1))
        ;
    while (!trainer_advance(again.trainer, 1) || !trainer_advance(some.trainer, 1))
        ;
    const size_t row = (size_t)f->config.record_count * sizeof(double);
    for (int i = 0; i < 24; ++i) {
        const double *whole = trainer_field(task.trainer, RECORD_LOSS) + i * f->config.record_count;
        assert_memory_equal(whole, trainer_field(again.trainer, RECORD_LOSS) + i * f->config.record_count,
                            row);
        if (wanted[i])
            assert_memory_equal(
                whole, trainer_field(some.trainer, RECORD_LOSS) + i / 2 * f->config.record_count, row);
    }
    /* Also a group that has ended, whose rows could not be written. */
    save(f, &task);
    struct task ended = begin(f, NULL);
    assert_string_equal(restore(f, &ended, &restored), "");
    assert_true(restored && trainer_advance(ended.trainer, 0));
    assert_memory_equal(trainer_results(task.trainer), trainer_results(ended.trainer),
                        24 * sizeof(struct run_result));
    checkpoint_remove(&f->checkpoints, &task);
    struct task none = begin(f, NULL);
    assert_string_equal(restore(f, &none, &restored), "");
    assert_false(restored);
    struct task *tasks[] = {&task, &again, &some, &ended, &none};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; ++i)
        task_done(tasks[i]);
}

/* A subset was saved, and more is wanted: someone has damaged rows since. */
static void runs_that_were_not_saved(void **state)
{
    struct fixture *f = *state;
    uint8_t wanted[64] = {1, 1, 0, 1};
    struct task task = begin(f, wanted);
    save(f, &task);
    task_done(&task);
    assert_refused(f, "of other runs");
}

static void another_program_config_or_kernels(void **state)
{
    struct fixture *f = *state;
    struct task task = begin_and_train(f, 10);
    save(f, &task);
    task_done(&task);
    checkpoints_done(&f->checkpoints);
    init_checkpoints(f, "program 2", "skx, avx512");
    assert_true(f->checkpoints.any);
    assert_refused(f, "(program 1)");
    checkpoints_done(&f->checkpoints);
    init_checkpoints(f, "program 1", "haswell, avx2");
    assert_refused(f, "(skx, avx512 kernels)");
    checkpoints_done(&f->checkpoints);
    f->config.seed = 2;
    init_checkpoints(f, "program 1", "skx, avx512");
    assert_refused(f, "(config ");
}

/* Every byte of the head and many of the rest, flipped; every length. */
static void damage_is_seen(void **state)
{
    struct fixture *f = *state;
    struct task task = begin_and_train(f, 10);
    save(f, &task);
    task_done(&task);
    char path[256];
    struct stat at;
    path_of(f, path);
    int file = open(path, O_RDWR);
    assert_true(file >= 0 && fstat(file, &at) == 0);
    for (off_t i = 0; i < at.st_size; i += i < 1400 ? 13 : 211) {
        unsigned char byte, flipped;
        assert_int_equal(pread(file, &byte, 1, i), 1);
        flipped = byte ^ (unsigned char)(1 << i % 8);
        assert_int_equal(pwrite(file, &flipped, 1, i), 1);
        assert_refused(f, i < 8 ? "not a checkpoint of this version" : "damaged");
        assert_int_equal(pwrite(file, &byte, 1, i), 1);
    }
    bool restored;
    task = begin(f, NULL);
    assert_string_equal(restore(f, &task, &restored), "");
    task_done(&task);
    /* A huge size in the head, and a file that has it. */
    int64_t huge = INT64_C(1) << 50;
    assert_int_equal(pwrite(file, &huge, sizeof huge, 16), sizeof huge);
    assert_refused(f, "damaged");
    if (ftruncate(file, huge) == 0)
        assert_refused(f, "damaged");
    for (off_t size = at.st_size - 1; size > 0; size = size * 2 / 3) {
        assert_int_equal(ftruncate(file, size), 0);
        assert_refused(f, size < 1056 ? "not a checkpoint of this version" : "damaged");
    }
    assert_int_equal(ftruncate(file, 0), 0);
    assert_refused(f, "not a checkpoint of this version");
    close(file);
}

static void what_cannot_be_read_or_written(void **state)
{
    struct fixture *f = *state;
    struct task task = begin_and_train(f, 10);
    char path[256];
    path_of(f, path);
    assert_int_equal(mkdir(f->checkpoints.folder, 0777), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_refused(f, "directory");
    struct error err = {0};
    assert_int_equal(checkpoint_save(&f->checkpoints, &task, &err), ERROR_IO);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(rmdir(path), 0);
    save(f, &task);
    /* Someone removes the folder. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(f->checkpoints.folder), 0);
    save(f, &task);
    /* Someone puts a file in its place. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(f->checkpoints.folder), 0);
    assert_int_equal(close(open(f->checkpoints.folder, O_CREAT | O_WRONLY, 0666)), 0);
    assert_int_equal(checkpoint_save(&f->checkpoints, &task, &err), ERROR_IO);
    assert_int_equal(unlink(f->checkpoints.folder), 0);
    task_done(&task);
}

/* What others have put there stays. */
static void clearing_takes_ours_alone(void **state)
{
    struct fixture *f = *state;
    struct task task = begin_and_train(f, 10);
    save(f, &task);
    task_done(&task);
    const char *const names[] = {"7.checkpoint.writing", "notes.txt", "x1.checkpoint", "1.checkpoint.bak"};
    char path[256];
    for (size_t i = 0; i < 4; ++i) {
        snprintf(path, sizeof path, "%s/%s", f->checkpoints.folder, names[i]);
        assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0666)), 0);
    }
    checkpoints_clear(&f->checkpoints);
    for (size_t i = 0; i < 4; ++i) {
        snprintf(path, sizeof path, "%s/%s", f->checkpoints.folder, names[i]);
        assert_int_equal(unlink(path), i == 0 ? -1 : 0);
    }
    path_of(f, path);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_saved_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_that_were_not_saved, setup, teardown),
        cmocka_unit_test_setup_teardown(another_program_config_or_kernels, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_or_written, setup, teardown),
        cmocka_unit_test_setup_teardown(clearing_takes_ours_alone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
