/* path: names beside a file, and what brings one to the disk. */
#ifndef SGDMAP_PATH_H
#define SGDMAP_PATH_H

#include "sgdmap/error.h"

/* PATH with `suffix` behind it, where PATH is what a symbolic link leads to: two names of one file share what stands
 * beside it. NULL without memory; free with free(). */
char *path_beside(const char *path, const char *suffix);

/* fsync of a file (`flags` 0) or a folder (O_DIRECTORY); where a file system has none, nothing. 0 or an errno. */
int path_sync(const char *path, int flags);

#endif
