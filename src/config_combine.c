/* config_combine: what keys mean together. Each key has been checked by itself; here are the defaults that follow from
 * other keys, and what would train something else than was asked for, or nothing at all. */
#include <math.h>
#include <stdio.h>

#include "config_internal.h"
#include "sgdmap/record.h"

enum { TEST_SAMPLES_DEFAULT = 10000, TEACHER_RANK_DEFAULT = 1 };

struct combination {
    const struct tree *tree;
    const struct raw *raw;
    struct config *config;
    struct error *err;
};

static bool is_given(const struct combination *c, enum key_id key)
{
    const struct raw_value *raw = &c->raw->values[key];
    return raw->text != NULL || raw->items != NULL || raw->range != NULL;
}

static bool has(const struct combination *c, enum axis_id axis, double value)
{
    const struct axis *values = &c->config->axes[axis];
    for (int64_t i = 0; i < values->count; i++)
        if (values->values[i] == value)
            return true;
    return false;
}

/* Where a key stands; without it, its section. */
static const struct node *node_of(const struct combination *c, enum key_id key)
{
    const char *path = config_keys[key].path;
    const struct node *node = tree_find(c->tree, path);
    if (node != NULL)
        return node;
    char section[TREE_KEY_MAX] = "";
    snprintf(section, sizeof section, "%.*s", (int)config_section_length(path), path);
    node = tree_find(c->tree, section);
    return node != NULL ? node : c->tree->root;
}

/* tree_fail() with the key's place and path. */
#define REFUSE(c, key, ...)                                                                                  \
    tree_fail((c)->tree, node_of(c, key), config_keys[key].path, (c)->err, __VA_ARGS__)

/* The first value of an axis that is not `value`, as text; NULL if there is none. */
static const char *other_than(const struct combination *c, enum axis_id axis, double value, char ret[32])
{
    const struct axis *values = &c->config->axes[axis];
    for (int64_t i = 0; i < values->count; i++)
        if (values->values[i] != value)
            return axis_value_text(axis, values->values[i], ret);
    return NULL;
}

/* The population's gradient knows neither samples nor labels. */
static int combine_gradient(const struct combination *c)
{
    char text[32];
    const struct axis *batches = &c->config->axes[AXIS_BATCH_SIZE];
    const bool minibatch = has(c, AXIS_GRADIENT, GRADIENT_MINIBATCH);
    if (minibatch && !is_given(c, KEY_BATCH_SIZE))
        return tree_fail(c->tree, node_of(c, KEY_BATCH_SIZE), "grid", c->err,
                         "the key batch_size is missing");
    if (!has(c, AXIS_GRADIENT, GRADIENT_POPULATION))
        return 0;

    static const char reason[] = "with grid.gradient population, the exact gradient in closed form";
    static const enum key_id samples[] = {KEY_BATCH_SIZE, KEY_DATA};
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
        if (!minibatch && is_given(c, samples[i]))
            return REFUSE(c, samples[i], "%s, which draws no samples: leave the key out", reason);
    if (batches->count > 1)
        return REFUSE(c, KEY_BATCH_SIZE,
                      "%lld values %s: its runs would be the same for each; expected one value",
                      (long long)batches->count, reason);
    if (other_than(c, AXIS_DATA, 0, text) != NULL)
        return REFUSE(c, KEY_DATA, "%s %s, which draws no samples; expected online, or minibatch alone", text,
                      reason);
    if (other_than(c, AXIS_NOISE, 0, text) != NULL)
        return REFUSE(c, KEY_NOISE, "%s %s, in which the noise of labels averages out; expected 0", text,
                      reason);
    for (int input = INPUT_STUDENT_T + 1; input < INPUT_KIND_COUNT; input++)
        if (has(c, AXIS_INPUT, input))
            return REFUSE(
                c, KEY_INPUT,
                "%s %s, which holds for inputs invariant under rotations: gaussian, sphere, student_t",
                input_kind_name((enum input_kind)input), reason);
    return 0;
}

static int combine_data(const struct combination *c)
{
    const struct axis *data = &c->config->axes[AXIS_DATA], *batches = &c->config->axes[AXIS_BATCH_SIZE];
    for (int64_t i = 0; i < data->count; i++)
        for (int64_t b = 0; b < batches->count; b++)
            if (data->values[i] > 0 && batches->values[b] > data->values[i])
                return REFUSE(c, KEY_BATCH_SIZE, "%.0f is more than the %.0f samples of grid.data",
                              batches->values[b], data->values[i]);

    const uint32_t test = UINT32_C(1) << RECORD_TEST_LOSS, all = (UINT32_C(1) << RECORD_FIELD_COUNT) - 1;
    char text[32];
    const bool chosen = is_given(c, KEY_FIELDS), wanted = !chosen || (c->config->fields & test) != 0;
    if (wanted && !is_given(c, KEY_TEST_SAMPLES) && other_than(c, AXIS_DATA, 0, text) != NULL)
        c->config->test_samples = TEST_SAMPLES_DEFAULT;
    if (chosen && wanted && c->config->test_samples == 0)
        return REFUSE(c, KEY_FIELDS, "test_loss without a test set; expected training.test_samples");
    if (!wanted && c->config->test_samples > 0)
        return REFUSE(c, KEY_TEST_SAMPLES, "has no effect: test_loss is not in output.fields");
    if (!chosen)
        c->config->fields = c->config->test_samples > 0 ? all : all & ~test;
    return 0;
}

static int combine_teacher(const struct combination *c)
{
    const bool low_rank = has(c, AXIS_TEACHER, TEACHER_LOW_RANK);
    if (!low_rank && is_given(c, KEY_TEACHER_RANK))
        return REFUSE(c, KEY_TEACHER_RANK, "has no effect: low_rank is not in grid.teacher");
    if (!low_rank)
        return 0;
    if (!is_given(c, KEY_TEACHER_RANK))
        c->config->teacher_rank = TEACHER_RANK_DEFAULT;
    const struct axis *dimensions = &c->config->axes[AXIS_DIMENSION];
    for (int64_t i = 0; i < dimensions->count; i++)
        if (dimensions->values[i] < (double)c->config->teacher_rank)
            return REFUSE(c, KEY_TEACHER_RANK, "%lld is more than the dimension %.0f in grid.dimension",
                          (long long)c->config->teacher_rank, dimensions->values[i]);
    return 0;
}

static int combine_schedule(const struct combination *c)
{
    static const double SHARE = 0.1; /* of the steps: the last are a tenth as large as the first */
    const bool inverse_time = has(c, AXIS_SCHEDULE, SCHEDULE_INVERSE_TIME);
    if (!inverse_time && is_given(c, KEY_DECAY))
        return REFUSE(c, KEY_DECAY, "has no effect: inverse_time is not in grid.schedule");
    if (inverse_time && !is_given(c, KEY_DECAY))
        c->config->decay = fmax(1, SHARE * (double)c->config->steps);
    return 0;
}

int config_combine(const struct tree *tree, const struct raw *raw, struct config *config, struct error *err)
{
    const struct combination c = {.tree = tree, .raw = raw, .config = config, .err = err};
    TRY(combine_gradient(&c));
    TRY(combine_data(&c));
    TRY(combine_teacher(&c));
    TRY(combine_schedule(&c));
    return 0;
}
