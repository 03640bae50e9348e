/* config_internal: what config's files share: the table of keys, and the forms between text and struct
 * config. */
#ifndef SGDMAP_CONFIG_INTERNAL_H
#define SGDMAP_CONFIG_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sgdmap/config.h"
#include "yaml_tree.h"

enum key_form {
    FORM_VALUE, /* one value */
    FORM_LIST,  /* one value or a list */
    FORM_AXIS,  /* one value, a list or a range */
};

enum key_type {
    TYPE_TEXT,    /* most: bytes */
    TYPE_INTEGER, /* least <= value <= most */
    TYPE_REAL,    /* low <= value <= high, or low < value with `open` */
    TYPE_CHOICE,  /* one of `names` */
    TYPE_FIELD,   /* a name in record's table */
};

enum key_id {
    KEY_TITLE,
    KEY_SEED,
    KEY_DIMENSION,
    KEY_BATCH_SIZE,
    KEY_GRADIENT,
    KEY_DATA,
    KEY_INPUT,
    KEY_TEACHER,
    KEY_TEACHER_NORM,
    KEY_LINK,
    KEY_NOISE,
    KEY_SCHEDULE,
    KEY_STEP_SIZE,
    KEY_INIT_SCALE,
    KEY_REPLICATES,
    KEY_STEPS,
    KEY_TOLERANCE,
    KEY_TEST_SAMPLES,
    KEY_TEACHER_RANK,
    KEY_DECAY,
    KEY_RECORD_COUNT,
    KEY_FIELDS,
    KEY_WEIGHTS,
    KEY_INTERVAL,
    KEY_ALIGNMENT,
    KEY_THRESHOLD,
    KEY_HINTS,
    KEY_COUNT
};

/* One key: its schema, its range and its messages follow from this. */
struct key {
    const char *path;
    enum key_form form;
    enum key_type type;
    bool required;
    bool decides; /* results depend on it: it counts for the digest */
    bool quiet; /* at its default, which is 0, it leaves no trace: the key is younger than the first files */
    bool open;
    int name_count; /* of an integer that has names: the word for 0 */
    uint64_t least, most;
    double low, high;
    const char *const *names;
};

extern const struct key config_keys[KEY_COUNT];

/* The key at a path, or NULL. */
const struct key *config_find_key(const char *path);

/* The length of "grid" in "grid.dimension", 0 in "seed"; and "dimension", "seed". */
size_t config_section_length(const char *path);
const char *config_leaf_name(const char *path);

/* The name of a value of TYPE_CHOICE or TYPE_FIELD. */
const char *config_choice_name(const struct key *key, int64_t value);

/* -- config_load.c: the tree to text in its place -------------------------------------------------- */

/* What libcyaml fills in: everything is text as yet. Of a key's members those of its form are used; NULL
 * where the text says nothing. */
struct raw_range {
    char **linear;
    unsigned linear_count;
    char **log;
    unsigned log_count;
    char *count;
};

struct raw_value {
    char *text;
    char **items;
    unsigned items_count;
    struct raw_range *range;
};

struct raw {
    struct raw_value values[KEY_COUNT];
};

/* Reads the tree by the table's schema, with libcyaml. The memory of `ret` is the tree's.
 * Errors: ERROR_ARGUMENT for what is unknown, missing or of the wrong kind; ERROR_MEMORY. */
WARN_UNUSED int config_load(struct tree *tree, struct raw **ret, struct error *err);

/* -- config_values.c: text to numbers, lists and ranges -------------------------------------------- */

/* One place in the text: what a message about it needs. */
struct place {
    const struct tree *tree;
    const struct node *node;
    const char *path;
};

/* Number parsing expects the C locale. */
WARN_UNUSED int config_parse_integer(const struct key *key, const struct place *place, const char *text,
                                     uint64_t *ret, struct error *err);
WARN_UNUSED int config_parse_real(const struct key *key, const struct place *place, const char *text,
                                  double *ret, struct error *err);
WARN_UNUSED int config_parse_choice(const struct key *key, const struct place *place, const char *text,
                                    double *ret, struct error *err);

WARN_UNUSED int config_axis_make(int64_t count, struct axis *ret, struct error *err);
void config_axis_done(struct axis *axis);
WARN_UNUSED int config_convert_list(const struct key *key, const struct place *place,
                                    const struct raw_value *raw, struct axis *ret, struct error *err);
WARN_UNUSED int config_convert_range(const struct key *key, const struct place *place,
                                     const struct raw_range *raw, struct axis *ret, struct error *err);

/* -- config_combine.c: what keys mean together ----------------------------------------------------- */

/* Fills in the defaults that depend on other keys, and refuses combinations that make no sense, with the reason. */
WARN_UNUSED int config_combine(const struct tree *tree, const struct raw *raw, struct config *config,
                               struct error *err);

#endif
