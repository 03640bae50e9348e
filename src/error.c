#include "sgdmap/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void error_write(struct error *err, enum error_code code, const char *format, ...)
{
    if (err != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(err->message, sizeof err->message, format, arguments);
        va_end(arguments);
        err->code = code;
    }
}

void error_prefix(struct error *err, const char *format, ...)
{
    if (err == NULL)
        return;
    struct error old = *err;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    if (length < 0)
        length = 0;
    size_t used = (size_t)length < sizeof err->message ? (size_t)length : sizeof err->message - 1;
    size_t rest = strlen(old.message);
    if (rest > sizeof err->message - 1 - used)
        rest = sizeof err->message - 1 - used;
    memcpy(err->message + used, old.message, rest);
    err->message[used + rest] = '\0';
}

int error_exit_status(enum error_code code)
{
    switch (code) {
    case ERROR_NONE:
        return 0;
    case ERROR_ARGUMENT:
        return 2;
    case ERROR_IO:
        return 74;
    case ERROR_INTERRUPTED:
        return 75;
    case ERROR_MEMORY:
    case ERROR_INTERNAL:
        break;
    }
    return 70;
}
