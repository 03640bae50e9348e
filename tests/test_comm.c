#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ranks.h"

static void all_well(void **state)
{
    struct ranks *ranks = *state;
    struct error err = {.code = ERROR_IO, .message = "untouched"};
    CHECK(ranks, comm_agree(MPI_COMM_WORLD, &err, ERROR_NONE) == ERROR_NONE);
    CHECK(ranks, err.code == ERROR_IO && strcmp(err.message, "untouched") == 0);
    CHECK(ranks, comm_agree(MPI_COMM_WORLD, NULL, ERROR_NONE) == ERROR_NONE);
    ranks_settle(ranks);
}

/* Whichever ranks fail, everyone has the error of the lowest. */
static void the_lowest_speaks(void **state)
{
    struct ranks *ranks = *state;
    for (int lowest = 0; lowest < ranks->size; lowest++) {
        struct error err = {0};
        int code = ERROR_NONE;
        if (ranks->rank >= lowest)
            code =
                error_set(&err, ranks->rank == lowest ? ERROR_IO : ERROR_MEMORY, "rank %d: no", ranks->rank);
        char expected[32];
        snprintf(expected, sizeof expected, "rank %d: no", lowest);
        CHECK(ranks, comm_agree(MPI_COMM_WORLD, &err, code) == ERROR_IO);
        CHECK(ranks, err.code == ERROR_IO);
        CHECK(ranks, strcmp(err.message, expected) == 0);
    }
    ranks_settle(ranks);
}

static void one_alone_fails(void **state)
{
    struct ranks *ranks = *state;
    for (int alone = 0; alone < ranks->size; alone++) {
        int code = ranks->rank == alone ? ERROR_INTERRUPTED : ERROR_NONE;
        CHECK(ranks, comm_agree(MPI_COMM_WORLD, NULL, code) == ERROR_INTERRUPTED);
    }
    ranks_settle(ranks);
}

static void texts_arrive(void **state)
{
    struct ranks *ranks = *state;
    const size_t lengths[] = {0, 1, 11, 3 * 1000 * 1000};
    for (size_t at = 0; at < sizeof lengths / sizeof *lengths; at++) {
        struct error err = {0};
        char *text = NULL;
        size_t length = 99;
        if (ranks->rank == 0) {
            length = lengths[at];
            text = malloc(length + 1);
            for (size_t i = 0; text != NULL && i < length; i++)
                text[i] = (char)(i * i % 251); /* bytes of all kinds, NUL too */
        }
        CHECK_CALL(ranks, comm_broadcast_text(MPI_COMM_WORLD, &text, &length, &err), err);
        CHECK(ranks, text != NULL && length == lengths[at]);
        CHECK(ranks, ranks->rank == 0 || text[length] == '\0');
        bool same = true;
        for (size_t i = 0; i < length; i++)
            same = same && text[i] == (char)(i * i % 251);
        CHECK(ranks, same);
        free(text);
    }
    ranks_settle(ranks);
}

int main(int argc, char **argv)
{
    struct ranks ranks = {0};
    ranks_init(&argc, &argv, &ranks);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(all_well, &ranks),
        cmocka_unit_test_prestate(the_lowest_speaks, &ranks),
        cmocka_unit_test_prestate(one_alone_fails, &ranks),
        cmocka_unit_test_prestate(texts_arrive, &ranks),
    };
    return ranks_finish(cmocka_run_group_tests_name("comm", tests, NULL, NULL));
}
