#include "cpu/internal.h"

#include <stdarg.h>
#include <stdio.h>

#define L4J_TEXT_(x) #x
#define L4J_TEXT(x) L4J_TEXT_(x)

l4j_status l4j_fail(l4j_error *error, l4j_status status, const char *format, ...) {
    if (error) {
        error->status = status;
        va_list args;
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
    }
    return status;
}

const char *l4j_status_name(l4j_status status) {
    static const char *const names[] = {"L4J_OK",        "L4J_EINVAL",    "L4J_ENOTSUP", "L4J_ENOMEM", "L4J_EWORKSPACE",
                                        "L4J_EALIGN",    "L4J_EBUSY",     "L4J_EDEVICE", "L4J_EABI",   "L4J_ENUMERIC",
                                        "L4J_ECANCELED", "L4J_EINTERNAL", "L4J_ECUDA"};
    return status >= 0 && status < (int32_t)(sizeof names / sizeof *names) ? names[status] : "unknown";
}

uint32_t l4j_abi_version(void) { return L4J_ABI_VERSION; }

const char *l4j_version_string(void) { return L4J_VERSION; }

const char *l4j_build_info(void) {
#define TIER(name, isa) " " #name
    return "lora4j " L4J_VERSION ", ABI " L4J_TEXT(L4J_ABI_MAJOR) "." L4J_TEXT(L4J_ABI_MINOR) ", "
#if defined(__clang__)
                                                                                              "clang " __clang_version__
#else
                                                                                              "gcc " __VERSION__
#endif
                                                                                              ", tiers" L4J_TIERS(TIER);
#undef TIER
}
