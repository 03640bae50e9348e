#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sgdmap/error.h"

static void sets_and_prefixes(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(error_set(&err, ERROR_ARGUMENT, "steps: %d is not in [1, %d]", 0, 9), ERROR_ARGUMENT);
    error_prefix(&err, "%s:%d: ", "a.yaml", 3);
    assert_string_equal(err.message, "a.yaml:3: steps: 0 is not in [1, 9]");
    assert_int_equal(error_set(NULL, ERROR_IO, "no one listens"), ERROR_IO);
}

static void cuts_what_is_too_long(void **state)
{
    (void)state;
    struct error err = {0};
    char text[2 * sizeof err.message];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(error_set(&err, ERROR_IO, "%s", text), ERROR_IO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    error_prefix(&err, "%s", "head: ");
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_memory_equal(err.message, "head: xxx", 9);
    error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void exit_statuses(void **state)
{
    (void)state;
    assert_int_equal(error_exit_status(ERROR_NONE), 0);
    assert_int_equal(error_exit_status(ERROR_ARGUMENT), 2);
    assert_int_equal(error_exit_status(ERROR_IO), 74);
    assert_int_equal(error_exit_status(ERROR_INTERRUPTED), 75);
    assert_int_equal(error_exit_status(ERROR_MEMORY), 70);
    assert_int_equal(error_exit_status(ERROR_INTERNAL), 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_prefixes),
        cmocka_unit_test(cuts_what_is_too_long),
        cmocka_unit_test(exit_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
