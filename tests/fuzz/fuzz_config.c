/* fuzz_config: whatever a config says, the answer is a config that makes sense or a message.
 *
 * An input is a config's text, and after a line "--set" the overrides, one a line. It is read in both ways, as a file
 * with arguments and from memory, which have to agree. What is accepted has to come back from its own text with the
 * same meaning, and to lie within the bounds that the rest of the program relies on.
 *
 * libFuzzer calls it in a build with -Dfuzz=true; corpus.c calls it for files in every build. */
#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sgdmap/config.h"
#include "sgdmap/grid.h"
#include "sgdmap/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike an assert, in every build. */
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* A range of a million values is in order, but takes a second; what is checked value by value is smaller. */
enum { VALUES_MAX = 4096, OVERRIDES_MAX = 256 };

struct input {
    char *text; /* not ended by NUL, so that one byte too far is seen */
    size_t length;
    char *overrides;
};

static char *copy_bytes(const void *bytes, size_t size, size_t room)
{
    char *copy = malloc(room > 0 ? room : 1);
    CHECK(copy != NULL);
    memcpy(copy, bytes, size);
    return copy;
}

static struct input split(const char *data, size_t size)
{
    static const char mark[] = "\n--set\n";
    const size_t mark_length = sizeof mark - 1;
    const char *at = memmem(data, size, mark, mark_length);
    const char *overrides = at != NULL ? at + mark_length : data + size;
    size_t overrides_length = (size_t)(data + size - overrides);
    if (overrides_length > 0 && overrides[overrides_length - 1] == '\n')
        overrides_length--;
    struct input input = {.length = at != NULL ? (size_t)(at + 1 - data) : size};
    input.text = copy_bytes(data, input.length, input.length);
    input.overrides = copy_bytes(overrides, overrides_length, overrides_length + 1);
    input.overrides[overrides_length] = '\0';
    return input;
}

/* One line that a terminal can show, of the usual form. */
static void check_message(const char *name, int code, const struct error *err)
{
    CHECK(code == ERROR_ARGUMENT && err->code == ERROR_ARGUMENT);
    const char *message = err->message;
    CHECK(strncmp(message, "--set ", 6) == 0 || strncmp(message, name, strlen(name)) == 0);
    CHECK(strstr(message, ": ") != NULL && strlen(message) < sizeof err->message - 1);
    for (const unsigned char *byte = (const unsigned char *)message; *byte != '\0'; byte++)
        CHECK(*byte >= 0x20 && *byte != 0x7F && !(byte[0] == 0xC2 && byte[1] >= 0x80 && byte[1] < 0xA0));
}

/* What config_parse says; the caller's config changes only where it accepts. */
static int parse(const char *name, const char *text, size_t length, const char *overrides, struct config *ret,
                 struct error *err)
{
    unsigned char before[sizeof *ret];
    memset(ret, 0x5A, sizeof *ret);
    memcpy(before, ret, sizeof before);
    *err = (struct error){0};
    const int code = config_parse(name, text, length, overrides, ret, err);
    if (code != 0) {
        CHECK(memcmp((const unsigned char *)ret, before, sizeof before) == 0);
        check_message(name, code, err);
    }
    return code;
}

static void check_axis(const struct axis *axis, double low, double high)
{
    CHECK(axis->count >= 1);
    for (int64_t i = 0; i < axis->count; i++) {
        CHECK(axis->values[i] >= low && axis->values[i] <= high && !signbit(axis->values[i]));
        CHECK(i == 0 || axis->values[i] != axis->values[i - 1]);
    }
}

static void check_bounds(const struct config *config)
{
    check_axis(&config->axes[AXIS_DIMENSION], 1, CONFIG_DIMENSION_MAX);
    bool minibatch = false, population = false, low_rank = false;
    for (int64_t i = 0; i < config->axes[AXIS_GRADIENT].count; i++)
        *(config->axes[AXIS_GRADIENT].values[i] == GRADIENT_POPULATION ? &population : &minibatch) = true;
    for (int64_t i = 0; i < config->axes[AXIS_TEACHER].count; i++)
        low_rank = low_rank || config->axes[AXIS_TEACHER].values[i] == TEACHER_LOW_RANK;
    check_axis(&config->axes[AXIS_BATCH_SIZE], minibatch ? 1 : 0, minibatch ? CONFIG_BATCH_SIZE_MAX : 0);
    check_axis(&config->axes[AXIS_GRADIENT], 0, GRADIENT_KIND_COUNT - 1);
    check_axis(&config->axes[AXIS_DATA], 0, population ? 0 : 1e8);
    check_axis(&config->axes[AXIS_TEACHER], 0, TEACHER_KIND_COUNT - 1);
    check_axis(&config->axes[AXIS_NOISE], 0, population ? 0 : 1e6);
    check_axis(&config->axes[AXIS_SCHEDULE], 0, SCHEDULE_KIND_COUNT - 1);
    CHECK(!population || config->axes[AXIS_BATCH_SIZE].count == 1);
    CHECK(low_rank ? config->teacher_rank >= 1 : config->teacher_rank == 0);
    for (int64_t i = 0; i < config->axes[AXIS_DIMENSION].count; i++)
        CHECK((double)config->teacher_rank <= config->axes[AXIS_DIMENSION].values[i]);
    CHECK(config->test_samples >= 0 && config->test_samples <= 10000000);
    CHECK((config->test_samples > 0) == (config->fields >> RECORD_TEST_LOSS & 1));
    CHECK(config->decay >= 0 && config->decay <= 1e12);
    check_axis(&config->axes[AXIS_INPUT], 0, INPUT_KIND_COUNT - 1);
    check_axis(&config->axes[AXIS_LINK], 0, LINK_KIND_COUNT - 1);
    check_axis(&config->axes[AXIS_TEACHER_NORM], 0, 1e6);
    check_axis(&config->axes[AXIS_STEP_SIZE], 0x1p-1022, 1e6);
    check_axis(&config->axes[AXIS_INIT_SCALE], 0, 1e6);
    CHECK(config->replicates >= 1 && config->replicates <= 1000000);
    CHECK(config->steps >= 1 && config->steps <= INT64_C(1000000000000));
    CHECK(config->record_count >= 2 && config->record_count <= config->steps + 1);
    CHECK(config->tolerance > 0 && config->tolerance <= 1e6);
    CHECK(config->checkpoint_interval >= 1 && config->checkpoint_interval <= 1e6);
    CHECK(config->fields != 0 && config->fields >> RECORD_FIELD_COUNT == 0);
    CHECK((unsigned)config->weights < WEIGHTS_KIND_COUNT);
    CHECK(strlen(config->title) <= 1024);
}

static int64_t count_values(const struct config *config)
{
    int64_t count = 0;
    for (int axis = 0; axis < AXIS_COUNT; axis++)
        count += config->axes[axis].count;
    return count;
}

static void check_difference(const struct config *a, const struct config *b)
{
    char digests[2][CONFIG_DIGEST_SIZE];
    config_digest(a, digests[0]);
    config_digest(b, digests[1]);
    char *text = config_differences(a, b);
    CHECK(text != NULL);
    CHECK((text[0] == '\0') == (strcmp(digests[0], digests[1]) == 0));
    free(text);
}

/* As it comes back out of a result file, or from another rank. */
static void check_again(const struct config *config)
{
    struct config again;
    struct error err;
    CHECK(parse("again", config->text, strlen(config->text), config->overrides, &again, &err) == 0);
    char digests[2][CONFIG_DIGEST_SIZE];
    config_digest(config, digests[0]);
    config_digest(&again, digests[1]);
    CHECK(strcmp(digests[0], digests[1]) == 0);
    CHECK(strspn(digests[0], "0123456789abcdef") == CONFIG_DIGEST_SIZE - 1);
    CHECK(strcmp(config->title, again.title) == 0 && strcmp(config->text, again.text) == 0 &&
          strcmp(config->overrides, again.overrides) == 0);
    check_difference(config, &again);
    config_done(&again);
}

static void check_grid(const struct config *config)
{
    struct grid grid;
    struct error err = {0};
    if (grid_expand(config, &grid, &err) != 0) {
        CHECK(err.code == ERROR_ARGUMENT && err.message[0] != '\0');
        return;
    }
    CHECK(grid.run_count >= grid.group_count && grid.group_count >= 1);
    CHECK(isfinite(grid_total_cost(&grid)));
    const int64_t runs[] = {0, grid.run_count / 2, grid.run_count - 1};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        struct setting setting;
        struct group group;
        grid_setting(&grid, runs[i], &setting);
        grid_group(&grid, grid_group_of(&grid, runs[i]), &group);
        CHECK(setting.run == runs[i]);
        CHECK(group.first_run <= runs[i] && runs[i] < group.first_run + group.run_count);
    }
    grid_done(&grid);
}

/* The same as a file and arguments. Those cannot be empty, which is then the only difference. */
static void check_read(const struct input *input, int expected)
{
    static int file = -1;
    if (file < 0)
        file = memfd_create("config", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, 0) == 0);
    CHECK(pwrite(file, input->text, input->length, 0) == (ssize_t)input->length);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);

    char *lines = copy_bytes(input->overrides, strlen(input->overrides) + 1, strlen(input->overrides) + 1);
    const char *arguments[OVERRIDES_MAX];
    size_t count = 0;
    bool empty = false;
    for (char *at = lines; *lines != '\0' && at != NULL && count < OVERRIDES_MAX;) {
        arguments[count] = strsep(&at, "\n");
        empty |= arguments[count++][0] == '\0';
    }
    struct config config;
    struct error err = {0};
    const int code = config_read(path, arguments, count, &config, &err);
    if (code == 0)
        config_done(&config);
    else
        check_message(path, code, &err);
    if (count < OVERRIDES_MAX)
        CHECK(empty ? code != 0 : code == expected);
    free(lines);
}

/* Of the grid: they cost memory. Axes have at most a million values each. */
static double blocks_of(const struct config *config)
{
    double ret = 1;
    for (int axis = AXIS_DIMENSION; axis <= AXIS_DATA; axis++)
        ret *= (double)config->axes[axis].count;
    return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* What was accepted before, to be compared with. */
    static const char plain[] =
        "{seed: 1, grid: {dimension: 1, batch_size: 1, teacher_norm: 1, step_size: 1, "
        "init_scale: 1}, training: {steps: 1, tolerance: 1}}";
    struct input input = split((const char *)data, size);
    struct config config, other;
    struct error err;
    const int code = parse("f", input.text, input.length, input.overrides, &config, &err);
    check_read(&input, code);
    if (code == 0) {
        CHECK(strlen(config.text) == input.length && memcmp(config.text, input.text, input.length) == 0);
        check_bounds(&config);
        if (count_values(&config) <= VALUES_MAX) {
            check_again(&config);
            CHECK(parse("plain", plain, sizeof plain - 1, NULL, &other, &err) == 0);
            check_difference(&config, &other);
            config_done(&other);
        }
        if (blocks_of(&config) <= VALUES_MAX)
            check_grid(&config);
        config_done(&config);
    }
    free(input.text);
    free(input.overrides);
    return 0;
}
