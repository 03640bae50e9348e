/* yaml_tree: libyaml's events to a tree with line marks. */
#include "yaml_tree.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* -- Memory ---------------------------------------------------------------------------------------- */

struct arena_chunk {
    struct arena_chunk *before;
    size_t used, size;
    _Alignas(max_align_t) unsigned char bytes[];
};

void *arena_alloc(struct arena *arena, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    const size_t chunk_size = 32768;
    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + align - 1) / align * align;
    struct arena_chunk *chunk = arena->last;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        const size_t room = size > chunk_size ? size : chunk_size;
        chunk = calloc(1, sizeof *chunk + room);
        if (chunk == NULL)
            return NULL;
        chunk->size = room;
        chunk->before = arena->last;
        arena->last = chunk;
    }
    void *ret = chunk->bytes + chunk->used;
    chunk->used += size;
    return ret;
}

void arena_done(struct arena *arena)
{
    while (arena->last != NULL) {
        struct arena_chunk *before = arena->last->before;
        free(arena->last);
        arena->last = before;
    }
}

static char *arena_copy(struct arena *arena, const char *text, size_t length)
{
    char *copy = arena_alloc(arena, length + 1);
    if (copy != NULL)
        memcpy(copy, text, length);
    return copy;
}

/* -- Messages -------------------------------------------------------------------------------------- */

const char *text_shorten(const char *text, char ret[TEXT_SHORT_SIZE])
{
    const size_t most = 40;
    size_t length = strlen(text);
    if (length == 0)
        return strcpy(ret, "\"\"");
    const bool cut = length > most;
    if (cut) {
        length = most - 3;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80)
            length--; /* not inside a character */
    }
    for (size_t i = 0; i < length; i++) {
        /* A terminal must not obey a file: neither C0 (ESC) nor C1 (U+009B, which is ESC [ in one). */
        const unsigned char byte = (unsigned char)text[i], before = i > 0 ? (unsigned char)text[i - 1] : 0;
        const bool c1 = byte >= 0x80 && byte < 0xA0 && before == 0xC2;
        ret[i] = (char)(byte < 0x20 || byte == 0x7F || c1 ? '?' : text[i]);
        if (c1)
            ret[i - 1] = '?';
    }
    strcpy(ret + length, cut ? "..." : "");
    return ret;
}

static int fail_at(const struct tree *tree, const char *origin, int64_t line, const char *path,
                   struct error *err, const char *format, va_list arguments)
{
    char message[1024];
    vsnprintf(message, sizeof message, format, arguments);
    const char *colon = path[0] != '\0' ? ": " : "";
    if (origin != NULL)
        return error_set(err, ERROR_ARGUMENT, "%s: %s%s%s", origin, path, colon, message);
    return error_set(err, ERROR_ARGUMENT, "%s:%lld: %s%s%s", tree->name, (long long)line, path, colon,
                     message);
}

int tree_fail(const struct tree *tree, const struct node *node, const char *path, struct error *err,
              const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int code = fail_at(tree, node->origin, node->line, path, err, format, arguments);
    va_end(arguments);
    return code;
}

/* -- From events to nodes -------------------------------------------------------------------------- */

struct reader {
    struct tree *tree;
    const char *origin;
    const char *text;
    size_t length;
    yaml_parser_t parser;
    struct error *err;
};

__attribute__((format(printf, 3, 4))) static int reader_fail(const struct reader *reader, size_t line,
                                                             const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int code =
        fail_at(reader->tree, reader->origin, (int64_t)line + 1, "", reader->err, format, arguments);
    va_end(arguments);
    return code;
}

static int out_of_memory(struct error *err)
{
    return error_set(err, ERROR_MEMORY, "out of memory while reading the configuration");
}

/* Whether a line ends with the byte at `i`, as libyaml counts lines: YAML 1.1 has five line breaks. */
static bool ends_line(const struct reader *reader, size_t i)
{
    const char *text = reader->text;
    switch ((unsigned char)text[i]) {
    case '\n':
        return true;
    case '\r':
        return i + 1 == reader->length || text[i + 1] != '\n';
    case 0x85:
        return i >= 1 && text[i - 1] == '\xC2';
    case 0xA8:
    case 0xA9:
        return i >= 2 && memcmp(text + i - 2, "\xE2\x80", 2) == 0;
    default:
        return false;
    }
}

/* libyaml compares each of these directives with all before it, in one go: 16 MiB of them would take half
 * an hour. */
static int refuse_tag_directives(const struct reader *reader)
{
    static const char directive[] = "%TAG";
    const size_t directive_length = sizeof directive - 1;
    size_t line = 0;
    for (size_t i = 0; i + directive_length <= reader->length; i++) {
        if ((i == 0 || ends_line(reader, i - 1)) &&
            memcmp(reader->text + i, directive, directive_length) == 0)
            return reader_fail(reader, line, "a %%TAG directive: tags are not supported here");
        line += ends_line(reader, i);
    }
    return 0;
}

static int next_event(struct reader *reader, yaml_event_t *ret)
{
    yaml_parser_t *parser = &reader->parser;
    if (yaml_parser_parse(parser, ret) == 1)
        return 0;
    memset(ret, 0, sizeof *ret);
    const char *problem = parser->problem != NULL ? parser->problem : "cannot be read";
    if (parser->error == YAML_MEMORY_ERROR)
        return out_of_memory(reader->err);
    if (parser->error == YAML_READER_ERROR) { /* these know the byte, not the line */
        size_t line = 0;
        for (size_t i = 0; i < parser->problem_offset && i < reader->length; i++)
            line += ends_line(reader, i);
        if (parser->problem_value >= 0)
            return reader_fail(reader, line, "not UTF-8 text: %s (0x%02x)", problem,
                               (unsigned)parser->problem_value);
        return reader_fail(reader, line, "not UTF-8 text: %s", problem);
    }
    if (reader->origin == NULL && parser->context != NULL &&
        parser->context_mark.line != parser->problem_mark.line)
        return reader_fail(reader, parser->problem_mark.line, "not valid YAML: %s (%s from line %zu on)",
                           problem, parser->context, parser->context_mark.line + 1);
    return reader_fail(reader, parser->problem_mark.line, "not valid YAML: %s", problem);
}

#define SCOPED_EVENT __attribute__((cleanup(yaml_event_delete))) yaml_event_t

/* A few nested aliases would stand for more values than memory holds. */
static int refuse_anchor(const struct reader *reader, size_t line, const char *what, const yaml_char_t *name)
{
    char text[TEXT_SHORT_SIZE];
    return reader_fail(reader, line,
                       "the %s%s: anchors and aliases are not supported here; expected the value itself",
                       what, text_shorten((const char *)name, text));
}

static int refuse_decoration(const struct reader *reader, size_t line, const yaml_char_t *anchor,
                             const yaml_char_t *tag)
{
    char text[TEXT_SHORT_SIZE];
    if (anchor != NULL)
        return refuse_anchor(reader, line, "anchor &", anchor);
    if (tag != NULL)
        return reader_fail(reader, line, "the tag %s: tags are not supported here",
                           text_shorten((const char *)tag, text));
    return 0;
}

static void append(struct node *parent, struct node *child)
{
    if (parent->last == NULL)
        parent->first = child;
    else
        parent->last->next = child;
    parent->last = child;
    parent->count++;
}

static int compose(struct reader *reader, const yaml_event_t *event, int depth, struct node **ret);

static int compose_list(struct reader *reader, struct node *list, int depth)
{
    for (;;) {
        SCOPED_EVENT event = {0};
        TRY(next_event(reader, &event));
        if (event.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        struct node *child = NULL;
        TRY(compose(reader, &event, depth + 1, &child));
        append(list, child);
    }
}

/* The key of a map's next member, or NULL at the map's end. */
static int compose_key(struct reader *reader, const struct node *map, const char **ret, size_t *ret_line)
{
    SCOPED_EVENT event = {0};
    TRY(next_event(reader, &event));
    *ret = NULL;
    if (event.type == YAML_MAPPING_END_EVENT)
        return 0;
    const size_t line = event.start_mark.line;
    *ret_line = line;
    if (event.type == YAML_ALIAS_EVENT)
        return refuse_anchor(reader, line, "alias *", event.data.alias.anchor);
    if (event.type != YAML_SCALAR_EVENT)
        return reader_fail(reader, line, "a key that is a list or a map; keys are single words");
    TRY(refuse_decoration(reader, line, event.data.scalar.anchor, event.data.scalar.tag));

    const char *key = (const char *)event.data.scalar.value;
    const size_t length = event.data.scalar.length;
    char text[TEXT_SHORT_SIZE];
    text_shorten(key, text);
    if (length == 0 || length > TREE_KEY_MAX || strlen(key) != length)
        return reader_fail(reader, line, "%s: a key of %zu bytes; keys are words of 1 to %d", text, length,
                           TREE_KEY_MAX);
    const struct node *before = node_member(map, key);
    if (before != NULL)
        return reader_fail(reader, line, "%s: the key stands twice, in line %lld and in line %zu", text,
                           (long long)before->line, line + 1);
    if (map->count >= TREE_KEY_MAX) /* keeps the search above short */
        return reader_fail(reader, line, "%s: more than %d keys in one map", text, TREE_KEY_MAX);
    *ret = arena_copy(&reader->tree->arena, key, length);
    return *ret != NULL ? 0 : out_of_memory(reader->err);
}

static int compose_map(struct reader *reader, struct node *map, int depth)
{
    for (;;) {
        const char *key;
        size_t line = 0;
        TRY(compose_key(reader, map, &key, &line));
        if (key == NULL)
            return 0;
        SCOPED_EVENT event = {0};
        TRY(next_event(reader, &event));
        struct node *child = NULL;
        TRY(compose(reader, &event, depth + 1, &child));
        assert(child != NULL);
        child->key = key;
        child->line = (int64_t)line + 1;
        append(map, child);
    }
}

static int compose(struct reader *reader, const yaml_event_t *event, int depth, struct node **ret)
{
    struct tree *tree = reader->tree;
    const size_t line = event->start_mark.line;
    if (event->type == YAML_ALIAS_EVENT)
        return refuse_anchor(reader, line, "alias *", event->data.alias.anchor);
    if (depth > TREE_DEPTH_MAX)
        return reader_fail(reader, line, "lists and maps nested deeper than %d", TREE_DEPTH_MAX);
    if (++tree->node_count > TREE_NODE_MAX)
        return reader_fail(reader, line, "more than %d values", TREE_NODE_MAX);
    struct node *node = arena_alloc(&tree->arena, sizeof *node);
    if (node == NULL)
        return out_of_memory(reader->err);
    node->line = (int64_t)line + 1;
    node->origin = reader->origin;

    if (event->type == YAML_SCALAR_EVENT) {
        const char *text = (const char *)event->data.scalar.value;
        const size_t length = event->data.scalar.length;
        TRY(refuse_decoration(reader, line, event->data.scalar.anchor, event->data.scalar.tag));
        if (strlen(text) != length)
            return reader_fail(reader, line, "a value with a NUL character inside");
        node->kind = NODE_SCALAR;
        node->empty = length == 0 && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        node->text = arena_copy(&tree->arena, text, length);
        if (node->text == NULL)
            return out_of_memory(reader->err);
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        TRY(refuse_decoration(reader, line, event->data.sequence_start.anchor,
                              event->data.sequence_start.tag));
        node->kind = NODE_LIST;
        TRY(compose_list(reader, node, depth));
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        TRY(refuse_decoration(reader, line, event->data.mapping_start.anchor, event->data.mapping_start.tag));
        node->kind = NODE_MAP;
        TRY(compose_map(reader, node, depth));
    } else {
        return reader_fail(reader, line, "not valid YAML: no value where one was expected");
    }
    *ret = node;
    return 0;
}

/* stream start, document start, the root, document end, stream end: nothing else. */
static int compose_stream(struct reader *reader, struct node **ret)
{
    struct node *root = NULL;
    for (;;) {
        SCOPED_EVENT event = {0};
        TRY(next_event(reader, &event));
        const size_t line = event.start_mark.line;
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (root != NULL)
                return reader_fail(reader, line, "a second document begins; one is expected");
            break;
        case YAML_STREAM_END_EVENT:
            if (root == NULL)
                return reader_fail(reader, line, "empty: nothing but blanks and comments");
            *ret = root;
            return 0;
        default:
            TRY(compose(reader, &event, 0, &root));
        }
    }
}

int tree_parse(struct tree *tree, const char *origin, const char *text, size_t length, struct node **ret,
               struct error *err)
{
    static const char mark[] =
        "\xEF\xBB\xBF"; /* some editors begin with it; libyaml knows it only when it guesses */
    if (length > TREE_TEXT_MAX)
        return error_set(err, ERROR_ARGUMENT, "%s: longer than %d MiB", origin != NULL ? origin : tree->name,
                         TREE_TEXT_MAX / (1024 * 1024));
    if (length >= 3 && memcmp(text, mark, 3) == 0) {
        text += 3;
        length -= 3;
    }
    struct reader reader = {.tree = tree, .origin = origin, .text = text, .length = length, .err = err};
    TRY(refuse_tag_directives(&reader));
    if (yaml_parser_initialize(&reader.parser) == 0)
        return out_of_memory(err);
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING); /* no guessing of UTF-16 */
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, length);
    const int code = compose_stream(&reader, ret);
    yaml_parser_delete(&reader.parser);
    return code;
}

/* -- Reading and changing -------------------------------------------------------------------------- */

static struct node *find_member(const struct node *map, const char *key, size_t length)
{
    if (map->kind != NODE_MAP)
        return NULL;
    for (struct node *child = map->first; child != NULL; child = child->next)
        if (strncmp(child->key, key, length) == 0 && child->key[length] == '\0')
            return child;
    return NULL;
}

const struct node *node_member(const struct node *map, const char *key)
{
    return find_member(map, key, strlen(key));
}

const struct node *node_item(const struct node *list, int64_t index)
{
    const struct node *child = list->first;
    while (child != NULL && index-- > 0)
        child = child->next;
    return child;
}

const struct node *tree_find(const struct tree *tree, const char *path)
{
    const struct node *node = tree->root;
    while (node != NULL && *path != '\0') {
        const size_t length = strcspn(path, ".");
        node = find_member(node, path, length);
        path += length + (path[length] == '.');
    }
    return node;
}

int tree_set(struct tree *tree, const char *path, struct node *value, struct error *err)
{
    struct node *map = tree->root;
    for (const char *key = path;;) {
        if (map->kind != NODE_MAP)
            return tree_fail(tree, map, map->key != NULL ? map->key : "", err,
                             "expected a map of keys; a part of it is set on the command line");
        const size_t length = strcspn(key, ".");
        const bool leaf = key[length] == '\0';
        struct node *child = find_member(map, key, length);
        if (child == NULL || leaf) {
            struct node *fresh = leaf ? value : arena_alloc(&tree->arena, sizeof *fresh);
            const char *name = arena_copy(&tree->arena, key, length);
            if (fresh == NULL || name == NULL)
                return out_of_memory(err);
            if (!leaf)
                *fresh = (struct node){.kind = NODE_MAP, .line = value->line, .origin = value->origin};
            fresh->key = name;
            if (child != NULL) { /* the new one takes the old one's place, contents and all */
                struct node *next = child->next;
                *child = *fresh;
                child->next = next;
            } else {
                append(map, fresh);
                child = fresh;
            }
        }
        if (leaf)
            return 0;
        map = child;
        key += length + 1;
    }
}

void tree_done(struct tree *tree)
{
    arena_done(&tree->arena);
    tree->root = NULL;
}
