/* config_load: the tree to struct raw, by libcyaml.
 *
 * libcyaml reads a map into a struct by a schema, but knows no unions, and its messages know no path. So the
 * tree is written out again as YAML in which every axis has one form, whichever of the three the user chose;
 * libcyaml reads that; and what it logs about a trouble, which key and what is wrong there, is looked up in
 * the tree, which knows the line and what the user wrote. */
#include <assert.h>
#include <cyaml/cyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"
#include "words.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static void free_text(char **text)
{
    free(*text);
}

static int out_of_memory(struct error *err)
{
    return error_set(err, ERROR_MEMORY, "out of memory while reading the configuration");
}

/* -- The tree to YAML for libcyaml ----------------------------------------------------------------- */

/* Double-quoted, so that every text comes back as it is. */
static void write_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        if (*at == '"' || *at == '\\') {
            fprintf(file, "\\%c", *at++);
        } else if (*at >= 0x20 && *at < 0x7F) {
            fputc(*at++, file);
        } else { /* the tree's text is valid UTF-8, but not all of it may stand in YAML unescaped */
            const int more = *at < 0x80 ? 0 : *at < 0xE0 ? 1 : *at < 0xF0 ? 2 : 3;
            uint32_t code = more == 0 ? *at : *at & (0x3Fu >> more);
            for (int i = 0; i < more; i++)
                code = code << 6 | (*++at & 0x3F);
            at++;
            fprintf(file, code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
        }
    }
    fputc('"', file);
}

static void write_node(FILE *file, const struct node *node)
{
    if (node->kind == NODE_SCALAR) {
        write_text(file, node->text);
        return;
    }
    fputc(node->kind == NODE_LIST ? '[' : '{', file);
    for (const struct node *child = node->first; child != NULL; child = child->next) {
        if (child->key != NULL) {
            write_text(file, child->key);
            fputs(": ", file);
        }
        write_node(file, child);
        if (child->next != NULL)
            fputs(",\n", file);
    }
    fputc(node->kind == NODE_LIST ? ']' : '}', file);
}

/* libcyaml has no unions: one value becomes a list of one, and an axis {values: list} or {range: map}. */
static void write_value(FILE *file, const struct node *node, const struct key *key)
{
    const bool list = key != NULL && key->form != FORM_VALUE && node->kind == NODE_SCALAR;
    const bool axis = key != NULL && key->form == FORM_AXIS;
    if (axis)
        fprintf(file, "{\"%s\": ", node->kind == NODE_MAP ? "range" : "values");
    if (list)
        fputc('[', file);
    write_node(file, node);
    if (list)
        fputc(']', file);
    if (axis)
        fputc('}', file);
}

/* `section` is "" for the root. */
static void write_section(FILE *file, const struct node *map, const char *section)
{
    fputc('{', file);
    for (const struct node *child = map->first; child != NULL; child = child->next) {
        char path[2 * TREE_KEY_MAX + 2];
        snprintf(path, sizeof path, "%s%s%s", section, section[0] != '\0' ? "." : "", child->key);
        write_text(file, child->key);
        fputs(": ", file);
        if (section[0] == '\0' && child->kind == NODE_MAP && config_find_key(path) == NULL)
            write_section(file, child, child->key);
        else
            write_value(file, child, config_find_key(path));
        if (child->next != NULL)
            fputs(",\n", file);
    }
    fputc('}', file);
}

/* -- libcyaml -------------------------------------------------------------------------------------- */

static bool same_section(const char *a, const char *b)
{
    const size_t length = config_section_length(a);
    return length == config_section_length(b) && strncmp(a, b, length) == 0;
}

static const cyaml_schema_value_t text_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED),
};

enum { OPTIONAL_POINTER = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL };

static const cyaml_schema_field_t range_schema[] = {
    CYAML_FIELD_SEQUENCE("linear", OPTIONAL_POINTER, struct raw_range, linear, &text_schema, 2, 2),
    CYAML_FIELD_SEQUENCE("log", OPTIONAL_POINTER, struct raw_range, log, &text_schema, 2, 2),
    CYAML_FIELD_STRING_PTR("count", CYAML_FLAG_POINTER, struct raw_range, count, 0, CYAML_UNLIMITED),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t axis_schema[] = {
    CYAML_FIELD_SEQUENCE("values", OPTIONAL_POINTER, struct raw_value, items, &text_schema, 1,
                         CYAML_UNLIMITED),
    CYAML_FIELD_MAPPING_PTR("range", OPTIONAL_POINTER, struct raw_value, range, range_schema),
    CYAML_FIELD_END,
};

struct schema {
    char names[KEY_COUNT][TREE_KEY_MAX];                     /* the sections' */
    cyaml_schema_field_t sections[KEY_COUNT][KEY_COUNT + 1]; /* [section][key], ended by a NULL key */
    cyaml_schema_field_t top[KEY_COUNT + 1];
    cyaml_schema_value_t root;
};

static cyaml_schema_field_t field_schema(const struct key *key)
{
    const uint32_t base = (uint32_t)((size_t)(key - config_keys) * sizeof(struct raw_value));
    const enum cyaml_flag optional = key->required ? CYAML_FLAG_DEFAULT : CYAML_FLAG_OPTIONAL;
    cyaml_schema_field_t field = {.key = config_leaf_name(key->path), .data_offset = base};
    switch (key->form) {
    case FORM_VALUE:
        field.data_offset += (uint32_t)offsetof(struct raw_value, text);
        field.value = text_schema;
        break;
    case FORM_LIST:
        field.data_offset += (uint32_t)offsetof(struct raw_value, items);
        field.count_offset = base + (uint32_t)offsetof(struct raw_value, items_count);
        field.count_size = sizeof(unsigned);
        field.value = (cyaml_schema_value_t){
            CYAML_VALUE_SEQUENCE(CYAML_FLAG_POINTER, char *, &text_schema, 1, CYAML_UNLIMITED)};
        break;
    case FORM_AXIS:
        field.value =
            (cyaml_schema_value_t){CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_value, axis_schema)};
        break;
    }
    field.value.flags = (enum cyaml_flag)(field.value.flags | optional);
    return field;
}

/* The table as libcyaml's schema. Sections lie at offset 0: their keys' offsets are those in struct raw
 * itself. */
static void schema_init(struct schema *schema)
{
    memset(schema, 0, sizeof *schema);
    int top_count = 0;
    for (int first = 0, end; first < KEY_COUNT; first = end) {
        for (end = first + 1;
             end < KEY_COUNT && same_section(config_keys[first].path, config_keys[end].path);)
            end++;
        const size_t length = config_section_length(config_keys[first].path);
        if (length == 0) {
            for (int k = first; k < end; k++)
                schema->top[top_count++] = field_schema(&config_keys[k]);
            continue;
        }
        assert(length < TREE_KEY_MAX);
        memcpy(schema->names[first], config_keys[first].path, length);
        bool required = false;
        for (int k = first; k < end; k++) {
            required |= config_keys[k].required;
            schema->sections[first][k - first] = field_schema(&config_keys[k]);
        }
        schema->top[top_count++] = (cyaml_schema_field_t){
            .key = schema->names[first],
            .value = {CYAML_VALUE_MAPPING(required ? CYAML_FLAG_DEFAULT : CYAML_FLAG_OPTIONAL, struct raw,
                                          schema->sections[first])},
        };
    }
    schema->root = (cyaml_schema_value_t){CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, schema->top)};
}

/* libcyaml grows lists by one entry at a time: capacity in powers of two keeps that from being quadratic. The
 * arena takes all of it back in one go, so that no error path of libcyaml can leak. */
static void *raw_memory(void *context, void *pointer, size_t size)
{
    struct block {
        size_t capacity;
        _Alignas(max_align_t) unsigned char bytes[];
    };
    if (size == 0)
        return NULL;
    const struct block *old =
        pointer == NULL ? NULL : (const struct block *)((char *)pointer - offsetof(struct block, bytes));
    if (old != NULL && old->capacity >= size)
        return pointer;
    size_t capacity = size;
    if (old != NULL)
        while (capacity < 2 * old->capacity)
            capacity = 2 * old->capacity;
    struct block *block = arena_alloc(context, sizeof *block + capacity);
    if (block == NULL)
        return NULL;
    block->capacity = capacity;
    if (old != NULL)
        memcpy(block->bytes, old->bytes, old->capacity);
    return block->bytes;
}

/* Room for every path. */
enum { PATH_SIZE = TREE_DEPTH_MAX * (TREE_KEY_MAX + 1) + 1 };

/* What libcyaml's log says about a trouble: the path from the inside out, and the key or entry that it is
 * about. */
struct trouble {
    char path[TREE_DEPTH_MAX][TREE_KEY_MAX + 1];
    int depth;
    char key[TREE_KEY_MAX + 1];
    long entry; /* from 1; 0 without one */
};

static void listen(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    struct trouble *trouble = context;
    (void)level;
    char line[256];
    vsnprintf(line, sizeof line, format, arguments);
    static const char *const about[] = {"Load: Unexpected key: ", "Load: Missing required mapping field: "};
    for (size_t i = 0; i < LENGTH(about); i++)
        if (strncmp(line, about[i], strlen(about[i])) == 0) {
            line[strlen(line) - 1] = '\0'; /* the newline */
            snprintf(trouble->key, sizeof trouble->key, "%.*s", TREE_KEY_MAX, line + strlen(about[i]));
        }
    if (trouble->depth == 0)
        sscanf(line, "  in sequence entry '%ld'", &trouble->entry);
    char key[TREE_KEY_MAX + 1];
    if (trouble->depth < TREE_DEPTH_MAX && sscanf(line, "  in mapping field '%64[^']'", key) == 1)
        strcpy(trouble->path[trouble->depth++], key);
}

/* The keys that may stand in the map at `path`. */
static void known_keys(const struct schema *schema, const char *path, struct words *ret)
{
    const struct key *axis = config_find_key(path);
    const cyaml_schema_field_t *fields = axis != NULL && axis->form == FORM_AXIS ? range_schema : schema->top;
    if (path[0] != '\0' && axis == NULL)
        for (const cyaml_schema_field_t *field = schema->top; field->key != NULL; field++)
            if (strcmp(field->key, path) == 0)
                fields = field->value.mapping.fields;
    ret->count = 0;
    for (; fields->key != NULL; fields++)
        ret->list[ret->count++] = fields->key;
}

static int fail_unknown(const struct tree *tree, const struct schema *schema, const struct node *map,
                        const char *path, const char *name, struct error *err)
{
    struct words known;
    char text[TEXT_SHORT_SIZE], full[PATH_SIZE + TEXT_SHORT_SIZE];
    known_keys(schema, path, &known);
    snprintf(full, sizeof full, "%s%s%s", path, path[0] != '\0' ? "." : "", text_shorten(name, text));
    const struct node *node = node_member(map, name);
    if (node == NULL)
        node = map;
    const char *meant = words_nearest(&known, name);
    for (int k = 0; k < KEY_COUNT && meant == NULL; k++)
        if (strcmp(config_leaf_name(config_keys[k].path), name) == 0)
            meant = config_keys[k].path; /* the right key in the wrong place */
    if (meant != NULL)
        return tree_fail(tree, node, full, err, "unknown key; did you mean %s?", meant);
    return tree_fail(tree, node, full, err, "unknown key; expected one of %s", words_join(&known));
}

static int fail_kind(const struct tree *tree, const struct node *node, const char *path, bool entry,
                     struct error *err)
{
    char text[TEXT_SHORT_SIZE];
    const char *got = node->kind == NODE_LIST  ? "a list"
                      : node->kind == NODE_MAP ? "a map of keys"
                      : node->empty            ? "nothing"
                                               : text_shorten(node->text, text);
    const struct key *key = config_find_key(path);
    const char *expected = "a map of keys";
    if (entry)
        expected = "one value";
    else if (key != NULL)
        expected = key->form == FORM_VALUE  ? "one value"
                   : key->form == FORM_LIST ? "one value or a list"
                                            : "one value, a list, or a range {linear: [a, b], count: n}";
    else if (strcmp(config_leaf_name(config_leaf_name(path)), "count") == 0)
        expected = "one value";
    else if (strchr(config_leaf_name(path), '.') != NULL)
        expected = "the two endpoints [a, b]";
    return tree_fail(tree, node, path, err, "expected %s, got %s", expected, got);
}

static int translate(const struct tree *tree, const struct schema *schema, cyaml_err_t code,
                     const struct trouble *trouble, struct error *err)
{
    /* What we wrote is good YAML: libyaml fails on it only for lack of memory. */
    if (code == CYAML_ERR_OOM || code == CYAML_ERR_LIBYAML_PARSER || code == CYAML_ERR_LIBYAML_PARSER_INIT)
        return out_of_memory(err);

    /* At a missing key the innermost field is the one that was read last. Our own words are not the user's.
     */
    char path[PATH_SIZE] = "";
    const int innermost = code == CYAML_ERR_MAPPING_FIELD_MISSING ? 1 : 0;
    for (int i = trouble->depth - 1; i >= innermost; i--) {
        if (strcmp(trouble->path[i], "values") == 0 || strcmp(trouble->path[i], "range") == 0)
            continue;
        if (path[0] != '\0')
            strcat(path, ".");
        strcat(path, trouble->path[i]);
    }
    const struct node *node = tree_find(tree, path);
    if (node == NULL)
        return error_set(err, ERROR_INTERNAL, "%s: %s: %s", tree->name, path, cyaml_strerror(code));

    switch (code) {
    case CYAML_ERR_INVALID_KEY:
        return fail_unknown(tree, schema, node, path, trouble->key, err);
    case CYAML_ERR_MAPPING_FIELD_MISSING:
        return tree_fail(tree, node, path, err, "the key %s is missing", trouble->key);
    case CYAML_ERR_INVALID_VALUE: {
        const bool entry = trouble->entry > 0 && node->kind == NODE_LIST;
        const struct node *item = entry ? node_item(node, trouble->entry - 1) : NULL;
        return fail_kind(tree, item != NULL ? item : node, path, entry, err);
    }
    case CYAML_ERR_SEQUENCE_ENTRIES_MIN:
    case CYAML_ERR_SEQUENCE_ENTRIES_MAX:
        if (config_find_key(path) != NULL)
            return tree_fail(tree, node, path, err, "the list is empty; expected at least one value");
        return tree_fail(tree, node, path, err, "expected the two endpoints [a, b], got a list of %lld",
                         (long long)node->count);
    default:
        return error_set(err, ERROR_INTERNAL, "%s: %s: cannot be read: %s", tree->name, path,
                         cyaml_strerror(code));
    }
}

int config_load(struct tree *tree, struct raw **ret, struct error *err)
{
    __attribute__((cleanup(free_text))) char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    if (file == NULL)
        return out_of_memory(err);
    if (tree->root->kind == NODE_MAP)
        write_section(file, tree->root, "");
    else
        write_node(file, tree->root);
    const bool short_of_memory = ferror(file) != 0;
    if (fclose(file) != 0 || short_of_memory)
        return out_of_memory(err);

    struct schema schema;
    schema_init(&schema);
    struct trouble trouble = {0};
    const cyaml_config_t config = {
        .log_fn = listen,
        .log_ctx = &trouble,
        .mem_fn = raw_memory,
        .mem_ctx = &tree->arena,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
    void *data = NULL;
    const cyaml_err_t code =
        cyaml_load_data((const unsigned char *)text, length, &config, &schema.root, &data, NULL);
    if (code != CYAML_OK)
        return translate(tree, &schema, code, &trouble, err);
    *ret = data;
    return 0;
}
