/* config: YAML to a checked struct.
 *
 * The text goes through four stages, each with one job:
 *   yaml_tree      text -> a tree with line marks; refuses aliases, twins, floods; --set is applied to it
 *   config_load    the tree -> struct raw, by libcyaml with a schema made from the table below; refuses what
 *                  is unknown, missing or of the wrong kind
 *   config_values  struct raw's strings -> struct config; refuses what is out of range
 *   config_combine the struct as a whole; refuses values that make no sense together */
#include "sgdmap/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* for a state that lives on the stack */
#include <xxhash.h>

#include "config_internal.h"
#include "sgdmap/record.h"
#include "words.h"

/* -- The table of keys ----------------------------------------------------------------------------- */

static const char *const link_names[LINK_KIND_COUNT] = {"identity", "none"};
static const char *const input_names[INPUT_KIND_COUNT] = {"gaussian", "sphere",  "student_t",
                                                          "laplace",  "uniform", "rademacher"};
static const char *const gradient_names[GRADIENT_KIND_COUNT] = {"minibatch", "population"};
static const char *const teacher_names[TEACHER_KIND_COUNT] = {"gaussian", "orthogonal", "low_rank",
                                                              "diagonal"};
static const char *const schedule_names[SCHEDULE_KIND_COUNT] = {"constant", "inverse_time", "cosine"};
static const char *const data_names[] = {"online"};
static const char *const weights_names[WEIGHTS_KIND_COUNT] = {"none", "final"};

enum {
    DATA_MAX = 100 * 1000 * 1000, /* a rank keeps the order of the samples, 4 bytes for each */
    TEST_SAMPLES_MAX = 10 * 1000 * 1000,
    RECORD_COUNT_MAX = 1000000,
    RECORD_COUNT_DEFAULT = 64,
    TITLE_MAX = 1024,
    ALIGNMENT_MAX = 1 << 30, /* a file has some thirty datasets, each with a gap before it */
    THRESHOLD_MIN = 1 << 16, /* HDF5 aligns metadata too: hundreds of pieces, all smaller */
    THRESHOLD_DEFAULT = 1 << 20,
    /* What every MPI takes: MPI_MAX_INFO_KEY is at least 32, MPI_MAX_INFO_VAL 64. */
    HINT_NAME_MAX = 31,
    HINT_VALUE_MAX = 63,
    HINT_COUNT_MAX = 64,
};

/* Everything that a config may say: the schema, the ranges, the messages and the digest follow it. The keys
 * of a section are neighbours. The bounds are where a value is a slip of the pen rather than a wish: a
 * student of 4096^2 doubles is 128 MiB, a batch of 65536 inputs as long 2 GiB; step sizes and scales of 1e6
 * diverge at once; 10^12 steps take days even at d = 1. */
const struct key config_keys[KEY_COUNT] = {
    [KEY_TITLE] = {"title", FORM_VALUE, TYPE_TEXT, .most = TITLE_MAX},
    [KEY_SEED] = {"seed", FORM_VALUE, TYPE_INTEGER, .required = true, .decides = true, .most = UINT64_MAX},
    [KEY_DIMENSION] = {"grid.dimension", FORM_AXIS, TYPE_INTEGER, .required = true, .decides = true,
                       .least = 1, .most = CONFIG_DIMENSION_MAX},
    /* required where a gradient is a minibatch's: config_combine.c */
    [KEY_BATCH_SIZE] = {"grid.batch_size", FORM_AXIS, TYPE_INTEGER, .decides = true, .least = 1,
                        .most = CONFIG_BATCH_SIZE_MAX},
    [KEY_GRADIENT] = {"grid.gradient", FORM_LIST, TYPE_CHOICE, .decides = true, .quiet = true,
                      .name_count = GRADIENT_KIND_COUNT, .names = gradient_names},
    [KEY_DATA] = {"grid.data", FORM_AXIS, TYPE_INTEGER, .decides = true, .quiet = true, .name_count = 1,
                  .names = data_names, .least = 1, .most = DATA_MAX},
    [KEY_INPUT] = {"grid.input", FORM_LIST, TYPE_CHOICE, .decides = true, .name_count = INPUT_KIND_COUNT,
                   .names = input_names},
    [KEY_TEACHER] = {"grid.teacher", FORM_LIST, TYPE_CHOICE, .decides = true, .quiet = true,
                     .name_count = TEACHER_KIND_COUNT, .names = teacher_names},
    [KEY_TEACHER_NORM] = {"grid.teacher_norm", FORM_AXIS, TYPE_REAL, .required = true, .decides = true,
                          .high = 1e6},
    [KEY_LINK] = {"grid.link", FORM_LIST, TYPE_CHOICE, .decides = true, .name_count = LINK_KIND_COUNT,
                  .names = link_names},
    [KEY_NOISE] = {"grid.noise", FORM_AXIS, TYPE_REAL, .decides = true, .quiet = true, .high = 1e6},
    [KEY_SCHEDULE] = {"grid.schedule", FORM_LIST, TYPE_CHOICE, .decides = true, .quiet = true,
                      .name_count = SCHEDULE_KIND_COUNT, .names = schedule_names},
    [KEY_STEP_SIZE] = {"grid.step_size", FORM_AXIS, TYPE_REAL, .required = true, .decides = true,
                       .open = true, .high = 1e6},
    [KEY_INIT_SCALE] = {"grid.init_scale", FORM_AXIS, TYPE_REAL, .required = true, .decides = true,
                        .high = 1e6},
    [KEY_REPLICATES] = {"grid.replicates", FORM_VALUE, TYPE_INTEGER, .decides = true, .least = 1,
                        .most = 1000000},
    [KEY_STEPS] = {"training.steps", FORM_VALUE, TYPE_INTEGER, .required = true, .decides = true, .least = 1,
                   .most = UINT64_C(1000000000000)},
    [KEY_TOLERANCE] = {"training.tolerance", FORM_VALUE, TYPE_REAL, .required = true, .decides = true,
                       .open = true, .high = 1e6},
    [KEY_TEST_SAMPLES] = {"training.test_samples", FORM_VALUE, TYPE_INTEGER, .decides = true, .quiet = true,
                          .least = 1, .most = TEST_SAMPLES_MAX},
    [KEY_TEACHER_RANK] = {"training.teacher_rank", FORM_VALUE, TYPE_INTEGER, .decides = true, .quiet = true,
                          .least = 1, .most = CONFIG_DIMENSION_MAX},
    [KEY_DECAY] = {"training.decay", FORM_VALUE, TYPE_REAL, .decides = true, .quiet = true, .open = true,
                   .high = 1e12},
    /* `most` is steps + 1 where that is less */
    [KEY_RECORD_COUNT] = {"records.count", FORM_VALUE, TYPE_INTEGER, .decides = true, .least = 2,
                          .most = RECORD_COUNT_MAX},
    [KEY_FIELDS] = {"output.fields", FORM_LIST, TYPE_FIELD, .decides = true,
                    .name_count = RECORD_FIELD_COUNT},
    [KEY_WEIGHTS] = {"output.weights", FORM_VALUE, TYPE_CHOICE, .decides = true,
                     .name_count = WEIGHTS_KIND_COUNT, .names = weights_names},
    [KEY_INTERVAL] = {"checkpoint.interval", FORM_VALUE, TYPE_REAL, .low = 0.1, .high = 1e6},
    [KEY_ALIGNMENT] = {"file.alignment", FORM_VALUE, TYPE_INTEGER, .least = 1, .most = ALIGNMENT_MAX},
    [KEY_THRESHOLD] = {"file.threshold", FORM_VALUE, TYPE_INTEGER, .least = THRESHOLD_MIN,
                       .most = UINT64_C(1) << 40},
    [KEY_HINTS] = {"file.hints", FORM_LIST, TYPE_TEXT, .required = false},
};

static const enum key_id axis_keys[AXIS_COUNT] = {
    [AXIS_DIMENSION] = KEY_DIMENSION,
    [AXIS_BATCH_SIZE] = KEY_BATCH_SIZE,
    [AXIS_GRADIENT] = KEY_GRADIENT,
    [AXIS_DATA] = KEY_DATA,
    [AXIS_INPUT] = KEY_INPUT,
    [AXIS_TEACHER] = KEY_TEACHER,
    [AXIS_TEACHER_NORM] = KEY_TEACHER_NORM,
    [AXIS_LINK] = KEY_LINK,
    [AXIS_NOISE] = KEY_NOISE,
    [AXIS_SCHEDULE] = KEY_SCHEDULE,
    [AXIS_STEP_SIZE] = KEY_STEP_SIZE,
    [AXIS_INIT_SCALE] = KEY_INIT_SCALE,
};

/* The length of "grid" in "grid.dimension", 0 in "seed". */
size_t config_section_length(const char *path)
{
    const char *dot = strchr(path, '.');
    return dot != NULL ? (size_t)(dot - path) : 0;
}

const char *config_leaf_name(const char *path)
{
    const size_t section = config_section_length(path);
    return section > 0 ? path + section + 1 : path;
}

/* The key at a path, or NULL. */
const struct key *config_find_key(const char *path)
{
    for (int k = 0; k < KEY_COUNT; k++)
        if (strcmp(config_keys[k].path, path) == 0)
            return &config_keys[k];
    return NULL;
}

const char *config_choice_name(const struct key *key, int64_t value)
{
    if (key->type == TYPE_FIELD)
        return record_field_info((enum record_field)value)->name;
    return key->names[value];
}

const char *link_kind_name(enum link_kind link)
{
    assert((unsigned)link < LINK_KIND_COUNT);
    return link_names[link];
}

const char *input_kind_name(enum input_kind input)
{
    assert((unsigned)input < INPUT_KIND_COUNT);
    return input_names[input];
}

const char *gradient_kind_name(enum gradient_kind gradient)
{
    assert((unsigned)gradient < GRADIENT_KIND_COUNT);
    return gradient_names[gradient];
}

const char *teacher_kind_name(enum teacher_kind teacher)
{
    assert((unsigned)teacher < TEACHER_KIND_COUNT);
    return teacher_names[teacher];
}

const char *schedule_kind_name(enum schedule_kind schedule)
{
    assert((unsigned)schedule < SCHEDULE_KIND_COUNT);
    return schedule_names[schedule];
}

const char *weights_kind_name(enum weights_kind weights)
{
    assert((unsigned)weights < WEIGHTS_KIND_COUNT);
    return weights_names[weights];
}

const char *axis_name(enum axis_id axis)
{
    assert((unsigned)axis < AXIS_COUNT);
    return config_leaf_name(config_keys[axis_keys[axis]].path);
}

static bool is_named(const struct key *key, double value)
{
    return key->type == TYPE_CHOICE || (key->name_count > 0 && value == 0);
}

const char *axis_value_text(enum axis_id axis, double value, char ret[32])
{
    const struct key *key = &config_keys[axis_keys[axis]];
    if (is_named(key, value))
        snprintf(ret, 32, "%s", config_choice_name(key, (int64_t)value));
    else
        snprintf(ret, 32, "%.6g", value);
    return ret;
}

bool config_has_axis(const struct config *config, enum axis_id axis)
{
    const struct axis *values = &config->axes[axis];
    return !config_keys[axis_keys[axis]].quiet || values->count > 1 || values->values[0] != 0;
}

/* -- Small help ------------------------------------------------------------------------------------ */

static void free_text(char **text)
{
    free(*text);
}

/* Numbers are written with a point wherever the program runs. The C locale costs glibc no memory, so this
 * does not fail there; elsewhere the caller's locale stays. */
struct locale_scope {
    locale_t ours, before;
};

static struct locale_scope locale_enter(void)
{
    struct locale_scope scope = {.ours = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
    if (scope.ours != (locale_t)0)
        scope.before = uselocale(scope.ours);
    return scope;
}

static void locale_leave(struct locale_scope *scope)
{
    if (scope->ours == (locale_t)0)
        return;
    uselocale(scope->before);
    freelocale(scope->ours);
}

#define SCOPED_TEXT __attribute__((cleanup(free_text))) char *
#define SCOPED_C_LOCALE __attribute__((cleanup(locale_leave))) struct locale_scope

static int out_of_memory(struct error *err)
{
    return error_set(err, ERROR_MEMORY, "out of memory while reading the configuration");
}

/* -- Text to the config ---------------------------------------------------------------------------- */

/* Of an optional axis: 0, the first kind, alone. */
static int axis_default(struct axis *ret, struct error *err)
{
    TRY(config_axis_make(1, ret, err));
    ret->values[0] = 0.0;
    return 0;
}

/* A hint's name is a word, its value printable; what a name means is for the MPI to know, which ignores others. */
static bool is_hint(const char *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    const size_t name = strspn(text, letters);
    if (name == 0 || name > HINT_NAME_MAX || text[name] != '=')
        return false;
    const char *value = text + name + 1;
    const size_t length = strlen(value);
    for (const char *at = value; *at != '\0'; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at > '~')
            return false;
    return length > 0 && length <= HINT_VALUE_MAX;
}

/* The hints as one text, one a line. */
static int convert_hints(const struct place *place, const struct raw_value *raw, char **ret,
                         struct error *err)
{
    if (raw->items_count > HINT_COUNT_MAX)
        return tree_fail(place->tree, place->node, place->path, err, "%u hints; expected at most %d",
                         raw->items_count, HINT_COUNT_MAX);
    SCOPED_TEXT joined = calloc((size_t)raw->items_count * (HINT_NAME_MAX + HINT_VALUE_MAX + 2) + 1, 1);
    if (joined == NULL)
        return out_of_memory(err);
    char *end = joined, shown[TEXT_SHORT_SIZE];
    for (unsigned i = 0; i < raw->items_count; i++) {
        const char *text = raw->items[i];
        const struct node *node = place->node->kind == NODE_LIST ? node_item(place->node, i) : place->node;
        if (!is_hint(text))
            return tree_fail(
                place->tree, node, place->path, err,
                "%s is no hint; expected NAME=VALUE, as in romio_ds_write=disable, of at most %d and %d "
                "characters",
                text_shorten(text, shown), HINT_NAME_MAX, HINT_VALUE_MAX);
        const size_t name = strcspn(text, "=") + 1;
        for (const char *line = joined; *line != '\0'; line = strchr(line, '\n') + 1)
            if (strncmp(line, text, name) == 0)
                return tree_fail(place->tree, node, place->path, err,
                                 "%.*s stands twice; expected a name once", (int)name - 1, text);
        end = stpcpy(stpcpy(end, text), "\n");
    }
    free(*ret);
    *ret = joined;
    joined = NULL;
    return 0;
}

/* Converts one key; raw->... is NULL where the text says nothing and the default stands. */
static int convert_key(enum key_id id, const struct tree *tree, const struct raw_value *raw,
                       struct config *config, struct error *err)
{
    struct key key = config_keys[id];
    const struct place place = {tree, tree_find(tree, key.path), key.path};
    for (int axis = 0; axis < AXIS_COUNT; axis++) {
        if (axis_keys[axis] != id)
            continue;
        if (raw->range != NULL)
            return config_convert_range(&key, &place, raw->range, &config->axes[axis], err);
        if (raw->items != NULL)
            return config_convert_list(&key, &place, raw, &config->axes[axis], err);
        return axis_default(&config->axes[axis], err);
    }

    if (raw->text == NULL && raw->items == NULL) {
        if (id == KEY_RECORD_COUNT && config->steps + 1 < config->record_count)
            config->record_count = config->steps + 1;
        return 0;
    }
    if (id == KEY_RECORD_COUNT && (uint64_t)config->steps + 1 < key.most)
        key.most = (uint64_t)config->steps + 1;
    uint64_t integer = 0;
    double real = 0.0;
    switch (key.type) {
    case TYPE_INTEGER:
        TRY(config_parse_integer(&key, &place, raw->text, &integer, err));
        break;
    case TYPE_REAL:
        TRY(config_parse_real(&key, &place, raw->text, &real, err));
        break;
    case TYPE_CHOICE:
        TRY(config_parse_choice(&key, &place, raw->text, &real, err));
        break;
    case TYPE_FIELD:
    case TYPE_TEXT:
        break;
    }

    switch (id) {
    case KEY_TITLE:
        if (place.node->empty || strlen(raw->text) > key.most)
            return tree_fail(tree, place.node, key.path, err, "%s; expected a text of at most %llu bytes",
                             place.node->empty ? "has no value" : "too long", (unsigned long long)key.most);
        free(config->title);
        config->title = strdup(raw->text);
        return config->title != NULL ? 0 : out_of_memory(err);
    case KEY_SEED:
        config->seed = integer;
        return 0;
    case KEY_REPLICATES:
        config->replicates = (int64_t)integer;
        return 0;
    case KEY_STEPS:
        config->steps = (int64_t)integer;
        return 0;
    case KEY_TOLERANCE:
        config->tolerance = real;
        return 0;
    case KEY_TEST_SAMPLES:
        config->test_samples = (int64_t)integer;
        return 0;
    case KEY_TEACHER_RANK:
        config->teacher_rank = (int64_t)integer;
        return 0;
    case KEY_DECAY:
        config->decay = real;
        return 0;
    case KEY_RECORD_COUNT:
        config->record_count = (int64_t)integer;
        return 0;
    case KEY_FIELDS: {
        __attribute__((cleanup(config_axis_done))) struct axis fields = {0};
        TRY(config_convert_list(&key, &place, raw, &fields, err));
        config->fields = 0;
        for (int64_t i = 0; i < fields.count; i++)
            config->fields |= UINT32_C(1) << (int)fields.values[i];
        return 0;
    }
    case KEY_WEIGHTS:
        config->weights = (enum weights_kind)real;
        return 0;
    case KEY_INTERVAL:
        config->checkpoint_interval = real;
        return 0;
    case KEY_ALIGNMENT:
        config->file_alignment = (int64_t)integer;
        return 0;
    case KEY_THRESHOLD:
        config->file_threshold = (int64_t)integer;
        return 0;
    case KEY_HINTS:
        return convert_hints(&place, raw, &config->file_hints, err);
    default:
        return error_set(err, ERROR_INTERNAL, "%s: nothing converts it", key.path);
    }
}

/* Applies one "path=value"; `override` has `length` bytes. */
static int apply_override(struct tree *tree, const char *override, size_t length, struct error *err)
{
    char *text = arena_alloc(&tree->arena, length + 1);
    const size_t origin_size = TEXT_SHORT_SIZE + 16;
    char *origin = arena_alloc(&tree->arena, origin_size);
    if (text == NULL || origin == NULL)
        return out_of_memory(err);
    memcpy(text, override, length);
    char shown[TEXT_SHORT_SIZE];
    snprintf(origin, origin_size, "--set %s", text_shorten(text, shown));

    char *equals = memchr(text, '=', length);
    if (equals == NULL)
        return error_set(err, ERROR_ARGUMENT, "%s: expected KEY=VALUE, as in grid.step_size=0.01", origin);
    *equals = '\0';
    if (config_find_key(text) == NULL) {
        struct words known = {.count = KEY_COUNT};
        for (int k = 0; k < KEY_COUNT; k++)
            known.list[k] = config_keys[k].path;
        const char *meant = words_nearest(&known, text);
        for (int k = 0; k < KEY_COUNT && meant == NULL; k++)
            if (strcmp(config_leaf_name(config_keys[k].path), text) == 0)
                meant = config_keys[k].path;
        text_shorten(text, shown);
        if (meant != NULL)
            return error_set(err, ERROR_ARGUMENT, "%s: %s: unknown key; did you mean %s?", origin, shown,
                             meant);
        return error_set(err, ERROR_ARGUMENT, "%s: %s: unknown key; expected a path such as grid.step_size",
                         origin, shown);
    }
    const char *value = equals + 1;
    struct node *node = NULL;
    TRY(tree_parse(tree, origin, value, length - (size_t)(value - text), &node, err));
    return tree_set(tree, text, node, err);
}

static int parse_checked(struct tree *tree, const char *text, size_t length, const char *overrides,
                         struct config *config, struct error *err)
{
    TRY(tree_parse(tree, NULL, text, length, &tree->root, err));
    for (const char *at = overrides; *at != '\0';) {
        const size_t line = strcspn(at, "\n");
        TRY(apply_override(tree, at, line, err));
        at += line + (at[line] == '\n');
    }
    struct raw *raw = NULL;
    TRY(config_load(tree, &raw, err));
    for (int k = 0; k < KEY_COUNT; k++)
        TRY(convert_key((enum key_id)k, tree, &raw->values[k], config, err));
    return config_combine(tree, raw, config, err);
}

int config_parse(const char *name, const char *text, size_t length, const char *overrides, struct config *ret,
                 struct error *err)
{
    if (overrides == NULL)
        overrides = "";
    if (length > TREE_TEXT_MAX)
        return error_set(err, ERROR_ARGUMENT, "%s: longer than %d MiB", name, TREE_TEXT_MAX / (1024 * 1024));
    SCOPED_C_LOCALE scope = locale_enter();
    (void)scope;
    __attribute__((cleanup(config_done))) struct config config = {
        .title = strdup("sgdmap sweep"),
        .replicates = 1,
        .record_count = RECORD_COUNT_DEFAULT,
        .weights = WEIGHTS_NONE,
        .checkpoint_interval = 60.0,
        .file_alignment = 1,
        .file_threshold = THRESHOLD_DEFAULT,
        .file_hints = strdup(""),
        .text = malloc(length + 1),
        .overrides = strdup(overrides),
    };
    if (config.title == NULL || config.text == NULL || config.overrides == NULL || config.file_hints == NULL)
        return out_of_memory(err);
    memcpy(config.text, text, length);
    config.text[length] = '\0';

    __attribute__((cleanup(tree_done))) struct tree tree = {.name = name};
    TRY(parse_checked(&tree, config.text, length, overrides, &config, err));
    *ret = config;
    config = (struct config){0};
    return 0;
}

void config_done(struct config *config)
{
    if (config == NULL)
        return;
    for (int axis = 0; axis < AXIS_COUNT; axis++)
        config_axis_done(&config->axes[axis]);
    free(config->title);
    free(config->text);
    free(config->overrides);
    free(config->file_hints);
    *config = (struct config){0};
}

/* -- The file -------------------------------------------------------------------------------------- */

static void close_descriptor(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
}

static int fail_io(const char *path, int number, struct error *err)
{
    return error_set(err, ERROR_IO, "%s: %s", path, strerror(number));
}

/* Reads a regular file of at most TREE_TEXT_MAX bytes: nothing that could block or never end is read at all.
 */
static int read_file(const char *path, char **ret, size_t *ret_length, struct error *err)
{
    __attribute__((cleanup(close_descriptor))) int file =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return fail_io(path, errno, err);
    struct stat status;
    if (fstat(file, &status) != 0)
        return fail_io(path, errno, err);
    if (S_ISDIR(status.st_mode))
        return error_set(err, ERROR_IO, "%s: a directory; expected a YAML file", path);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERROR_IO, "%s: not a regular file; expected a YAML file", path);

    /* The size may be a guess (/proc) and may change: one byte more than allowed tells. */
    const size_t most = (size_t)TREE_TEXT_MAX + 1;
    const bool large = status.st_size > TREE_TEXT_MAX;
    size_t capacity = (size_t)(status.st_size > 0 ? status.st_size : 0) + 4096;
    SCOPED_TEXT text = large ? NULL : malloc(capacity);
    if (text == NULL && !large)
        return out_of_memory(err);
    size_t length = large ? most : 0;
    while (length < most) {
        if (length == capacity) {
            capacity *= 2;
            char *larger = realloc(text, capacity);
            if (larger == NULL)
                return out_of_memory(err);
            text = larger;
        }
        const size_t room = (capacity < most ? capacity : most) - length;
        const ssize_t got = read(file, text + length, room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_io(path, errno, err);
        if (got == 0)
            break;
        length += (size_t)got;
    }
    if (length == most)
        return error_set(err, ERROR_ARGUMENT, "%s: longer than %d MiB", path, TREE_TEXT_MAX / (1024 * 1024));
    *ret = text;
    *ret_length = length;
    text = NULL;
    return 0;
}

/* The arguments as one text, one a line. */
static int join_overrides(const char *const *overrides, size_t count, char **ret, struct error *err)
{
    size_t size = 1;
    for (size_t i = 0; i < count; i++) {
        char shown[TEXT_SHORT_SIZE];
        if (overrides[i][0] == '\0' || strchr(overrides[i], '\n') != NULL)
            return error_set(err, ERROR_ARGUMENT, "--set %s: expected KEY=VALUE on one line",
                             text_shorten(overrides[i], shown));
        size += strlen(overrides[i]) + 1;
    }
    char *text = malloc(size);
    if (text == NULL)
        return out_of_memory(err);
    char *end = text;
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            *end++ = '\n';
        end = stpcpy(end, overrides[i]);
    }
    *end = '\0';
    *ret = text;
    return 0;
}

int config_read(const char *path, const char *const *overrides, size_t override_count, struct config *ret,
                struct error *err)
{
    SCOPED_TEXT text = NULL;
    SCOPED_TEXT joined = NULL;
    size_t length = 0;
    TRY(join_overrides(overrides, override_count, &joined, err));
    TRY(read_file(path, &text, &length, err));
    return config_parse(path, text, length, joined, ret, err);
}

/* -- The canonical form ---------------------------------------------------------------------------- */

/* Where canonical text goes: into a hash or into memory. */
struct sink {
    XXH3_state_t *hash;
    FILE *file;
    bool brief; /* for people: numbers as short as they can be */
};

__attribute__((format(printf, 2, 3))) static void put(const struct sink *sink, const char *format, ...)
{
    char text[128];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert(length >= 0 && (size_t)length < sizeof text);
    if (sink->hash != NULL)
        XXH3_128bits_update(sink->hash, text, (size_t)length);
    if (sink->file != NULL)
        fwrite(text, 1, (size_t)length, sink->file);
}

static void put_real(const struct sink *sink, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.15g", value);
    if (sink->brief && strtod(text, NULL) == value)
        put(sink, "%s", text);
    else
        put(sink, "%.17g", value);
}

static void put_axis(const struct sink *sink, const struct key *key, const struct axis *axis)
{
    const int64_t shown = 8; /* of a long list, to people */
    put(sink, "[");
    for (int64_t i = 0; i < axis->count; i++) {
        put(sink, "%s", i > 0 ? ", " : "");
        if (sink->brief && axis->count > shown && i == shown - 2) {
            put(sink, "..., ");
            i = axis->count - 1;
        }
        if (is_named(key, axis->values[i]))
            put(sink, "%s", config_choice_name(key, (int64_t)axis->values[i]));
        else
            put_real(sink, axis->values[i]);
    }
    put(sink, "]");
    if (sink->brief && axis->count > shown)
        put(sink, " (%lld values)", (long long)axis->count);
}

static void put_fields(const struct sink *sink, uint32_t fields)
{
    const char *between = "";
    put(sink, "[");
    for (int f = 0; f < RECORD_FIELD_COUNT; f++)
        if ((fields >> f & 1) != 0) {
            put(sink, "%s%s", between, record_field_info((enum record_field)f)->name);
            between = ", ";
        }
    put(sink, "]");
}

/* A key's value as canonical text: equal texts, equal values. */
static void put_value(const struct sink *sink, const struct config *config, enum key_id id)
{
    switch (id) {
    case KEY_SEED:
        put(sink, "%llu", (unsigned long long)config->seed);
        return;
    case KEY_REPLICATES:
        put(sink, "%lld", (long long)config->replicates);
        return;
    case KEY_STEPS:
        put(sink, "%lld", (long long)config->steps);
        return;
    case KEY_TOLERANCE:
        put_real(sink, config->tolerance);
        return;
    case KEY_TEST_SAMPLES:
        put(sink, "%lld", (long long)config->test_samples);
        return;
    case KEY_TEACHER_RANK:
        put(sink, "%lld", (long long)config->teacher_rank);
        return;
    case KEY_DECAY:
        put_real(sink, config->decay);
        return;
    case KEY_RECORD_COUNT:
        put(sink, "%lld", (long long)config->record_count);
        return;
    case KEY_FIELDS:
        put_fields(sink, config->fields);
        return;
    case KEY_WEIGHTS:
        put(sink, "%s", weights_kind_name(config->weights));
        return;
    default:
        for (int axis = 0; axis < AXIS_COUNT; axis++)
            if (axis_keys[axis] == id)
                put_axis(sink, &config_keys[id], &config->axes[axis]);
    }
}

/* Whether a key counts for the digest: it decides results, and is not younger than the first files and at its default. */
static bool is_canonical(const struct config *config, enum key_id id)
{
    if (!config_keys[id].decides || !config_keys[id].quiet)
        return config_keys[id].decides;
    switch (id) {
    case KEY_TEST_SAMPLES:
        return config->test_samples > 0;
    case KEY_TEACHER_RANK:
        return config->teacher_rank > 0;
    case KEY_DECAY:
        return config->decay > 0;
    default:
        for (int axis = 0; axis < AXIS_COUNT; axis++)
            if (axis_keys[axis] == id)
                return config_has_axis(config, (enum axis_id)axis);
        return true;
    }
}

/* The hash of one key's line, or of all lines that decide results with KEY_COUNT. */
static XXH128_hash_t canonical_hash(const struct config *config, enum key_id only)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_128bits_reset(&state);
    const struct sink sink = {.hash = &state};
    for (int k = 0; k < KEY_COUNT; k++) {
        if (!is_canonical(config, (enum key_id)k) || (only != KEY_COUNT && only != (enum key_id)k))
            continue;
        put(&sink, "%s = ", config_keys[k].path);
        put_value(&sink, config, (enum key_id)k);
        put(&sink, "\n");
    }
    return XXH3_128bits_digest(&state);
}

void config_digest(const struct config *config, char ret[CONFIG_DIGEST_SIZE])
{
    SCOPED_C_LOCALE scope = locale_enter();
    (void)scope;
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, canonical_hash(config, KEY_COUNT));
    for (size_t i = 0; i < sizeof bytes.digest; i++)
        snprintf(ret + 2 * i, 3, "%02x", bytes.digest[i]);
}

char *config_differences(const struct config *in_file, const struct config *given)
{
    SCOPED_C_LOCALE scope = locale_enter();
    (void)scope;
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    if (file == NULL)
        return NULL;
    const struct sink sink = {.file = file, .brief = true};
    for (int k = 0; k < KEY_COUNT; k++) {
        const enum key_id id = (enum key_id)k;
        if (!config_keys[k].decides || XXH128_isEqual(canonical_hash(in_file, id), canonical_hash(given, id)))
            continue;
        put(&sink, "  %s: ", config_keys[k].path);
        put_value(&sink, in_file, id);
        put(&sink, " in the file, ");
        put_value(&sink, given, id);
        put(&sink, " in the config\n");
    }
    const bool short_of_memory = ferror(file) != 0;
    if (fclose(file) != 0 || short_of_memory) {
        free(text);
        return NULL;
    }
    return text;
}
