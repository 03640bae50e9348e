#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sgdmap/guard.h"

static struct guard_limits limits = {.memory = 1 << 28, .cpu_seconds = 1, .wall_seconds = 60};

static int change(void *context, struct error *err)
{
    (void)err;
    ++*(int *)context;
    puts("nobody sees this");
    return ERROR_NONE;
}

static int refuse(void *context, struct error *err)
{
    return error_set(err, ERROR_IO, "%s: no", (const char *)context);
}

static int crash(void *context, struct error *err)
{
    (void)err;
    raise(*(int *)context);
    return ERROR_NONE;
}

static int leave(void *context, struct error *err)
{
    (void)context, (void)err;
    exit(0);
}

static int loop(void *context, struct error *err)
{
    (void)context, (void)err;
    for (volatile int turn = 0;; turn = !turn)
        ;
    return ERROR_NONE;
}

static int wait_for_ever(void *context, struct error *err)
{
    (void)context, (void)err;
    for (;;)
        pause();
    return ERROR_NONE;
}

static int take_memory(void *context, struct error *err)
{
    (void)context;
    const size_t size = (size_t)1 << 29;
    char *block = malloc(size);
    if (block == NULL)
        return error_set(err, ERROR_MEMORY, "no memory");
    memset(block, 1, size);
    free(block);
    return ERROR_NONE;
}

static void expect(int (*work)(void *, struct error *), void *context, int code, bool died, const char *why)
{
    struct error err = {0};
    bool ended = !died;
    assert_int_equal(guard_call(&limits, work, context, &ended, &err), code);
    assert_int_equal(ended, died);
    assert_string_equal(err.message, why);
}

static void answers(void **state)
{
    (void)state;
    int value = 1;
    expect(change, &value, ERROR_NONE, false, "");
    assert_int_equal(value, 1);
    char name[] = "a.h5";
    expect(refuse, name, ERROR_IO, false, "a.h5: no");
    bool died;
    assert_int_equal(guard_call(&limits, refuse, name, &died, NULL), ERROR_IO);
}

static void handler(int number)
{
    (void)number;
    _exit(0); /* as if all were well */
}

static void deaths(void **state)
{
    (void)state;
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGKILL};
    signal(SIGABRT, handler); /* MPI has such: they are not the child's */
    for (size_t at = 0; at < sizeof signals / sizeof *signals; at++) {
        int number = signals[at];
        expect(crash, &number, ERROR_IO, true, strsignal(number));
    }
    signal(SIGABRT, SIG_DFL);
    expect(leave, NULL, ERROR_IO, true, "it ended without an answer");
    expect(loop, NULL, ERROR_IO, true, "no end after 1 s of CPU time");
    limits.wall_seconds = 1;
    expect(wait_for_ever, NULL, ERROR_IO, true, "no end after 1 s");
    limits.wall_seconds = 60;
}

/* Ctrl-C reaches the whole group: what it means is for the parent to say. */
static void signals_for_the_parent(void **state)
{
    (void)state;
    int number = SIGINT;
    expect(crash, &number, ERROR_NONE, false, "");
    number = SIGTERM;
    expect(crash, &number, ERROR_NONE, false, "");
}

static void memory(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip();
#endif
    expect(take_memory, NULL, ERROR_MEMORY, false, "no memory");
    struct guard_limits more = limits;
    more.memory = (int64_t)1 << 30;
    more.cpu_seconds = 60; /* half a gigabyte of pages takes more than a second on some machines */
    bool died;
    struct error err = {0};
    assert_int_equal(guard_call(&more, take_memory, NULL, &died, &err), ERROR_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(deaths),
        cmocka_unit_test(signals_for_the_parent),
        cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
