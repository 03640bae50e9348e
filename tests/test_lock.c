#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sgdmap/lock.h"

static char folder[] = "/tmp/test_lock.XXXXXX";
static char path[64], lock_name[80];

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/a.h5", folder);
    snprintf(lock_name, sizeof lock_name, "%s.lock", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(lock_name);
    return rmdir(folder);
}

/* A child that takes the lock, says so and holds it until it is killed or, with `seconds`, for so long. */
static pid_t hold_in_child(double seconds)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct lock lock;
        int code = lock_take(path, 0, &lock, NULL);
        (void)!write(ready[1], code == 0 ? "y" : "n", 1);
        if (code == 0 && seconds > 0) {
            usleep((useconds_t)(seconds * 1e6));
            lock_release(&lock);
            _exit(0);
        }
        pause();
        _exit(1);
    }
    char answer = 0;
    assert_int_equal(read(ready[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void takes_and_releases(void **state)
{
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        struct lock lock = {.descriptor = -1};
        struct error err = {0};
        assert_int_equal(lock_take(path, 0, &lock, &err), ERROR_NONE);
        assert_true(lock.descriptor >= 0);
        assert_true(lock.exclusive);
        assert_string_equal(lock.path, lock_name);
        assert_int_equal(access(lock_name, F_OK), 0);
        assert_true((fcntl(lock.descriptor, F_GETFD) & FD_CLOEXEC) != 0);
        lock_release(&lock);
        assert_int_equal(lock.descriptor, -1);
        assert_int_equal(access(lock_name, F_OK), -1);
        lock_release(&lock);
    }
}

static void the_same_process_is_refused_too(void **state)
{
    (void)state;
    struct lock first, second = {.descriptor = -1};
    struct error err = {0};
    assert_int_equal(lock_take(path, 0, &first, &err), ERROR_NONE);
    assert_int_equal(lock_take(path, 0, &second, &err), ERROR_ARGUMENT);
    assert_int_equal(second.descriptor, -1);
    lock_release(&first);
}

static void the_owner_is_named(void **state)
{
    (void)state;
    setenv("SLURM_JOB_ID", "4711", 1);
    pid_t child = hold_in_child(0);
    unsetenv("SLURM_JOB_ID");
    struct lock lock;
    struct error err = {0};
    assert_int_equal(lock_take(path, 0.2, &lock, &err), ERROR_ARGUMENT);
    char expected[512], host[128] = "";
    gethostname(host, sizeof host - 1);
    snprintf(expected, sizeof expected,
             "%s: another job is writing it: process %d on host %s, SLURM job 4711, since 20", path,
             (int)child, host);
    assert_memory_equal(err.message, expected, strlen(expected));

    /* However it dies: the lock is free, and the file that it left is in nobody's way. */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(access(lock_name, F_OK), 0);
    assert_int_equal(lock_take(path, 0, &lock, &err), ERROR_NONE);
    lock_release(&lock);
    assert_int_equal(access(lock_name, F_OK), -1);
}

/* For one who only reads: as the one who is refused is told, without taking or leaving anything. */
static void the_owner_can_be_asked_for(void **state)
{
    (void)state;
    char owner[LOCK_OWNER_SIZE] = "as before";
    assert_false(lock_owner(path, owner));
    setenv("SLURM_JOB_ID", "12_3", 1);
    pid_t child = hold_in_child(0);
    unsetenv("SLURM_JOB_ID");
    assert_true(lock_owner(path, NULL) && lock_is_held(path));
    assert_string_equal(owner, "as before");
    assert_true(lock_owner(path, owner));
    char expected[64];
    snprintf(expected, sizeof expected, "process %d on host ", (int)child);
    assert_memory_equal(owner, expected, strlen(expected));
    assert_non_null(strstr(owner, ", SLURM job 12_3, since 20"));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(access(lock_name, F_OK), 0);
    assert_false(lock_owner(path, owner) || lock_is_held(path)); /* the file is there, its holder is not */
    unlink(lock_name);
}

/* The holder removes the file while another waits for it: the waiter must not hold a file that has no name.
 */
static void waits_for_one_that_leaves(void **state)
{
    (void)state;
    pid_t child = hold_in_child(0.3);
    struct lock lock, third;
    struct error err = {0};
    assert_int_equal(lock_take(path, 5, &lock, &err), ERROR_NONE);
    assert_int_equal(access(lock_name, F_OK), 0);
    assert_int_equal(lock_take(path, 0, &third, &err), ERROR_ARGUMENT);
    lock_release(&lock);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

/* Many processes take turns; each finds a counter as its predecessor left it. */
static void only_one_at_a_time(void **state)
{
    (void)state;
    enum { PROCESSES = 4, TURNS = 100 };
    char counter[80];
    snprintf(counter, sizeof counter, "%s/counter", folder);
    int file = open(counter, O_RDWR | O_CREAT, 0600);
    int value = 0;
    assert_int_equal(pwrite(file, &value, sizeof value, 0), sizeof value);
    pid_t children[PROCESSES];
    for (int at = 0; at < PROCESSES; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            for (int turn = 0; turn < TURNS; turn++) {
                struct lock lock;
                while (lock_take(path, 0, &lock, NULL) != 0)
                    ;
                int seen = -1;
                (void)!pread(file, &seen, sizeof seen, 0);
                seen++;
                (void)!pwrite(file, &seen, sizeof seen, 0);
                lock_release(&lock);
            }
            _exit(0);
        }
    }
    for (int at = 0; at < PROCESSES; at++)
        waitpid(children[at], NULL, 0);
    assert_int_equal(pread(file, &value, sizeof value, 0), sizeof value);
    assert_int_equal(value, PROCESSES * TURNS);
    close(file);
    unlink(counter);
}

static void stale_and_strange_files_are_harmless(void **state)
{
    (void)state;
    const char junk[] = "\033[2J not a note\nsecond line";
    int file = open(lock_name, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(file, junk, sizeof junk), sizeof junk);
    struct lock lock;
    struct error err = {0};
    assert_int_equal(lock_take(path, 0, &lock, &err), ERROR_NONE);

    /* A holder without a note, and one whose note would play with the terminal. */
    assert_int_equal(ftruncate(lock.descriptor, 0), 0);
    struct lock other;
    assert_int_equal(lock_take(path, 0, &other, &err), ERROR_ARGUMENT);
    assert_non_null(strstr(err.message, "it left no note"));
    assert_int_equal(pwrite(lock.descriptor, junk, sizeof junk, 0), sizeof junk);
    assert_int_equal(lock_take(path, 0, &other, &err), ERROR_ARGUMENT);
    assert_null(strchr(err.message, '\033'));
    assert_null(strstr(err.message, "second"));
    lock_release(&lock);
    close(file);
}

static void two_names_of_one_file_share_the_lock(void **state)
{
    (void)state;
    char link_name[80];
    snprintf(link_name, sizeof link_name, "%s/link.h5", folder);
    close(open(path, O_RDWR | O_CREAT, 0600));
    assert_int_equal(symlink("a.h5", link_name), 0);
    struct lock first, second;
    struct error err = {0};
    assert_int_equal(lock_take(path, 0, &first, &err), ERROR_NONE);
    assert_int_equal(lock_take(link_name, 0, &second, &err), ERROR_ARGUMENT);
    lock_release(&first);
    unlink(link_name);
    unlink(path);
}

static void no_folder_and_no_permission(void **state)
{
    (void)state;
    struct lock lock = {.descriptor = -1};
    struct error err = {0};
    char missing[96];
    snprintf(missing, sizeof missing, "%s/none/a.h5", folder);
    assert_int_equal(lock_take(missing, 0, &lock, &err), ERROR_IO);
    assert_non_null(strstr(err.message, missing));
    assert_non_null(strstr(err.message, strerror(ENOENT)));

    /* Root may write everywhere, so as someone else. */
    assert_int_equal(chmod(folder, 0555), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(2);
        bool refused =
            lock_take(path, 0, &lock, &err) == ERROR_IO && strstr(err.message, strerror(EACCES)) != NULL;
        _exit(refused ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_and_releases),
        cmocka_unit_test(the_same_process_is_refused_too),
        cmocka_unit_test(the_owner_is_named),
        cmocka_unit_test(the_owner_can_be_asked_for),
        cmocka_unit_test(waits_for_one_that_leaves),
        cmocka_unit_test(only_one_at_a_time),
        cmocka_unit_test(stale_and_strange_files_are_harmless),
        cmocka_unit_test(two_names_of_one_file_share_the_lock),
        cmocka_unit_test(no_folder_and_no_permission),
    };
    return cmocka_run_group_tests_name("lock", tests, setup, teardown);
}
