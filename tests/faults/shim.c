/* Preloaded: write() that writes less than it is asked to, but for the standard streams.
 *
 *   SHIM_WRITE=one|half
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    const char *how = getenv("SHIM_WRITE");
    if (how != NULL && fd > 2 && size > 1)
        size = strcmp(how, "one") == 0 ? 1 : (size + 1) / 2;
    return next(fd, data, size);
}
