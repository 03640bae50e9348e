/* yaml_tree: YAML text as a small tree in which everything knows where it stands.
 *
 * What a configuration does not need and what can do harm is refused here: anchors and aliases, tags, several
 * documents, a key that stands twice, deep nesting, floods of values, bytes that are not UTF-8 text. */
#ifndef SGDMAP_YAML_TREE_H
#define SGDMAP_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sgdmap/error.h"

/* Memory that is given back all at once. */
struct arena {
    struct arena_chunk *last;
};

/* Zeroed, aligned for everything; NULL if memory is short. */
void *arena_alloc(struct arena *arena, size_t size);
void arena_done(struct arena *arena);

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    bool empty;         /* a scalar of which nothing is written, as in "seed:" */
    int64_t line;       /* from 1: where its key stands, or itself where it has none */
    const char *origin; /* the command line's argument that it comes from, or NULL: the file */
    const char *key;    /* in a map, else NULL */
    const char *text;   /* of a scalar; no NUL inside */
    int64_t count;      /* children */
    struct node *first, *last, *next;
};

struct tree {
    const char *name; /* of the file, in messages; borrowed */
    struct arena arena;
    int64_t node_count;
    struct node *root;
};

enum { TREE_TEXT_MAX = 16 * 1024 * 1024, TREE_NODE_MAX = 1000000, TREE_DEPTH_MAX = 8, TREE_KEY_MAX = 64 };

/* Reads one document; `origin` is NULL for the file. The memory is the tree's.
 * Errors: ERROR_ARGUMENT "FILE:LINE: ...", ERROR_MEMORY. */
WARN_UNUSED int tree_parse(struct tree *tree, const char *origin, const char *text, size_t length,
                           struct node **ret, struct error *err);

/* Puts `value` at the dotted `path`, in place of what stands there; maps on the way are made. */
WARN_UNUSED int tree_set(struct tree *tree, const char *path, struct node *value, struct error *err);

void tree_done(struct tree *tree);

/* The node at a dotted path, "" for the root; NULL without one. */
const struct node *tree_find(const struct tree *tree, const char *path);
const struct node *node_member(const struct node *map, const char *key);
const struct node *node_item(const struct node *list, int64_t index);

/* ERROR_ARGUMENT with "FILE:LINE: path: message", or "ORIGIN: path: message". `path` may be "". */
int tree_fail(const struct tree *tree, const struct node *node, const char *path, struct error *err,
              const char *format, ...) __attribute__((format(printf, 5, 6)));

/* A value for a message: cut at 40 bytes, on one line, "" as two quotes. */
enum { TEXT_SHORT_SIZE = 48 };
const char *text_shorten(const char *text, char ret[TEXT_SHORT_SIZE]);

#endif
