#include "sgdmap/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char *path_beside(const char *path, const char *suffix)
{
    struct stat at;
    char *target = lstat(path, &at) == 0 && S_ISLNK(at.st_mode) ? realpath(path, NULL) : NULL;
    char *ret = NULL;
    if (asprintf(&ret, "%s%s", target != NULL ? target : path, suffix) < 0)
        ret = NULL;
    free(target);
    return ret;
}

int path_sync(const char *path, int flags)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | flags);
    int reason = descriptor < 0 || fsync(descriptor) < 0 ? errno : 0;
    if (descriptor >= 0)
        close(descriptor);
    return reason == EINVAL ? 0 : reason; /* EINVAL: this file system does not sync such a thing */
}
