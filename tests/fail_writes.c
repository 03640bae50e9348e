/* Preloaded into the program under test: from the FAIL_AFTER-th on, writes of rank FAIL_RANK to a file whose name ends in
 * FAIL_SUFFIX fail as on a full disk. */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static bool fails(int descriptor)
{
    static long seen;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *wanted = getenv("FAIL_RANK"),
               *suffix = getenv("FAIL_SUFFIX");
    const char *after = getenv("FAIL_AFTER");
    char path[64], target[4096];
    if (wanted == NULL || suffix == NULL || after == NULL || strcmp(rank != NULL ? rank : "0", wanted) != 0)
        return false;
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < (ssize_t)strlen(suffix) ||
        memcmp(target + length - strlen(suffix), suffix, strlen(suffix)) != 0)
        return false;
    if (seen++ < atol(after))
        return false;
    errno = ENOSPC;
    return true;
}

ssize_t pwrite(int descriptor, const void *buffer, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    return fails(descriptor) ? -1 : real(descriptor, buffer, size, offset);
}

ssize_t pwrite64(int descriptor, const void *buffer, size_t size, off_t offset)
{
    return pwrite(descriptor, buffer, size, offset);
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwritev");
    return fails(descriptor) ? -1 : real(descriptor, pieces, count, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    return pwritev(descriptor, pieces, count, offset);
}

ssize_t write(int descriptor, const void *buffer, size_t size)
{
    ssize_t (*real)(int, const void *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "write");
    return fails(descriptor) ? -1 : real(descriptor, buffer, size);
}
