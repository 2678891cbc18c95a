/* Finds and opens liblora4j_cuda.so. */
#include "cuda/backend.h"
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "liblora4j_cuda.so"
enum { PATH_BYTES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const l4j_backend *opened;

/* LORA4J_CUDA_LIBRARY, else beside this library, else where the system looks. */
static void find(char path[PATH_BYTES]) {
    const char *given = getenv("LORA4J_CUDA_LIBRARY");
    if (given && *given) {
        snprintf(path, PATH_BYTES, "%s", given);
        return;
    }
    Dl_info self;
    const char *slash = dladdr((const void *)l4j_open_backend, &self) ? strrchr(self.dli_fname, '/') : NULL;
    if (slash) {
        snprintf(path, PATH_BYTES, "%.*s/" LIBRARY, (int)(slash - self.dli_fname), self.dli_fname);
        if (access(path, R_OK) == 0) return;
    }
    snprintf(path, PATH_BYTES, LIBRARY);
}

static l4j_status open_library(l4j_error *error) {
    char path[PATH_BYTES];
    find(path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        return l4j_fail(error, L4J_ENOTSUP,
                        "device_open: the CUDA library cannot be opened: %.300s; put " LIBRARY
                        " beside liblora4j.so or its path into the environment variable LORA4J_CUDA_LIBRARY",
                        dlerror());
    }
    l4j_cuda_backend_function function;
    *(void **)&function = dlsym(library, "l4j_cuda_backend");
    const l4j_backend *found = function ? function() : NULL;
    if (!found || found->abi_version != L4J_ABI_VERSION || found->struct_size != sizeof *found ||
        strcmp(found->release, l4j_version_string()) != 0) {
        l4j_fail(error, L4J_EABI, "device_open: %.200s is of release %.40s, expected %s, the release of liblora4j.so",
                 path, found ? found->release : "unknown", l4j_version_string());
        dlclose(library);
        return L4J_EABI;
    }
    opened = found;
    return L4J_OK;
}

l4j_status l4j_open_backend(const l4j_backend **backend, l4j_error *error) {
    pthread_mutex_lock(&lock);
    l4j_status status = opened ? L4J_OK : open_library(error);
    *backend = opened;
    pthread_mutex_unlock(&lock);
    return status;
}
