/* error: the error as a value, with a code that main turns into an exit status and a message for a person. */
#ifndef SGDMAP_ERROR_H
#define SGDMAP_ERROR_H

#include <stdint.h>

enum error_code {
    ERROR_NONE = 0,
    ERROR_ARGUMENT,    /* a bad argument or configuration: exit 2 */
    ERROR_IO,          /* the file system or a file's content: exit 74 */
    ERROR_INTERRUPTED, /* a signal asked us to leave: exit 75 */
    ERROR_MEMORY,      /* an allocation failed: exit 70 */
    ERROR_INTERNAL,    /* anything that should not happen: exit 70 */
};

struct error {
    enum error_code code;
    char message[2048];
};

#define WARN_UNUSED __attribute__((warn_unused_result))

/* Writes code and message into `err` (which may be NULL) and is the code, so that a caller can `return error_set(...)`. A
 * message names the thing, the value and what was expected: "grid.dimension: 0 is not in [1, 4096]". The longest
 * messages are cut at the struct's size. A macro, so that compilers and analyzers see that it is not 0. */
#define error_set(err, code, ...) (error_write(err, code, __VA_ARGS__), error_status(code))
void error_write(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline int error_status(enum error_code code)
{
    return (int)code;
}

/* Puts a prefix before a message that is already there: "FILE: " + message. */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit status: 0, 2, 70, 74 or 75. */
int error_exit_status(enum error_code code);

/* The one macro that hides a return. */
#define TRY(expression)                                                                                      \
    do {                                                                                                     \
        int try_code = (expression);                                                                         \
        if (try_code != 0)                                                                                   \
            return try_code;                                                                                 \
    } while (0)

#endif
