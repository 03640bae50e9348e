#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sgdmap/command.h"
#include "sgdmap/terminal.h"

static void a_line_says_how_far_how_fast_and_how_long(void **state)
{
    (void)state;
    struct sweep_progress progress = {
        .run_count = 200,
        .outcomes = {[OUTCOME_PENDING] = 150, [OUTCOME_CONVERGED] = 30, [OUTCOME_DIVERGED] = 20},
        .trained = 50,
        .cost = 100,
        .cost_done = 40,
        .left = 15,
        .elapsed = 10,
        .ranks = 2};
    char line[512];
    terminal_line(&progress, line, sizeof line);
    assert_string_equal(line, " 40%  50/200 runs  5.0/s  ETA 15.0 s  30 converged, 20 diverged");
    progress.cost_done = 0;
    terminal_line(&progress, line, sizeof line);
    assert_non_null(strstr(line, "ETA —"));
}

static void durations_and_bytes(void **state)
{
    (void)state;
    const struct {
        double seconds;
        const char *text;
    } durations[] = {{0, "0.0 s"},         {59.94, "59.9 s"},       {59.96, "1 min 00 s"},
                     {61, "1 min 01 s"},   {3599, "59 min 59 s"},   {3599.6, "1 h 00 min"},
                     {7260, "2 h 01 min"}, {86400 * 3, "3.0 days"}, {1e300, "unknown time"}};
    char text[COMMAND_TEXT_SIZE];
    for (size_t i = 0; i < sizeof durations / sizeof *durations; ++i) {
        command_duration(durations[i].seconds, text);
        assert_string_equal(text, durations[i].text);
    }
    command_duration(0.0 / 0.0, text);
    assert_string_equal(text, "unknown time");
    const struct {
        double bytes;
        const char *text;
    } sizes[] = {{0, "0 B"},          {999, "999 B"},     {1000, "1.0 kB"},
                 {12345678, "12 MB"}, {2.75e9, "2.8 GB"}, {9.2e18, "9.2 EB"}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        command_bytes(sizes[i].bytes, text);
        assert_string_equal(text, sizes[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_says_how_far_how_fast_and_how_long),
        cmocka_unit_test(durations_and_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
