/* The parts of quantized weights: found by role, checked for what all formats have in common. */
#include "format.h"

#include "api/check.h"

#include <stdio.h>
#include <string.h>

static const char *const role_names[L4J_ROLES] = {[L4J_ROLE_VALUES] = "VALUES",
                                                  [L4J_ROLE_SCALES] = "SCALES",
                                                  [L4J_ROLE_ZEROS] = "ZEROS",
                                                  [L4J_ROLE_GROUP_INDEX] = "GROUP_INDEX",
                                                  [L4J_ROLE_BLOCK_SIZE] = "BLOCK_SIZE",
                                                  [L4J_ROLE_QUANT_MAP] = "QUANT_MAP",
                                                  [L4J_ROLE_NESTED_SCALES] = "NESTED_SCALES",
                                                  [L4J_ROLE_NESTED_QUANT_MAP] = "NESTED_QUANT_MAP",
                                                  [L4J_ROLE_NESTED_OFFSET] = "NESTED_OFFSET",
                                                  [L4J_ROLE_NESTED_BLOCK_SIZE] = "NESTED_BLOCK_SIZE"};

enum { VALUES = 1 << L4J_ROLE_VALUES, SCALES = 1 << L4J_ROLE_SCALES, ZEROS = 1 << L4J_ROLE_ZEROS };
enum {
    ROLES_bitsandbytes_4bit = VALUES | SCALES | 1 << L4J_ROLE_BLOCK_SIZE | 1 << L4J_ROLE_QUANT_MAP |
                              1 << L4J_ROLE_NESTED_SCALES | 1 << L4J_ROLE_NESTED_QUANT_MAP |
                              1 << L4J_ROLE_NESTED_OFFSET | 1 << L4J_ROLE_NESTED_BLOCK_SIZE,
    ROLES_llm_int8 = VALUES | SCALES,
    ROLES_int8 = VALUES | SCALES,
    ROLES_gptq = VALUES | SCALES | ZEROS | 1 << L4J_ROLE_GROUP_INDEX,
    ROLES_awq = VALUES | SCALES | ZEROS,
    ROLES_fp8 = VALUES | SCALES
};

typedef struct {
    int32_t scheme;
    const char *name;
    unsigned roles; /* that it may have */
    l4j_status (*open)(const l4j_parts *parts, l4j_quant *quant, l4j_error *error);
} format;

#define OTHER(name, family) {L4J_SCHEME_##name, #name, ROLES_##family, l4j_open_##family},
#define GGUF(name, decoder, values, bytes, group, sum, least, most) \
    {L4J_SCHEME_GGUF_##name, "GGUF_" #name, VALUES, l4j_open_gguf},
static const format formats[] = {L4J_OTHER_FORMATS(OTHER) L4J_GGUF_FORMATS(GGUF)};

static const format *format_of(int32_t scheme) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (formats[i].scheme == scheme) return &formats[i];
    }
    return NULL;
}

const char *l4j_format_name(int32_t scheme) {
    const format *f = format_of(scheme);
    return f ? f->name : NULL;
}

const char *l4j_role_name(int32_t role) { return role > 0 && role < L4J_ROLES ? role_names[role] : "unknown"; }

static l4j_status find_parts(l4j_part_list list, const format *f, l4j_parts *parts, l4j_error *error) {
    if (list.count < 1 || list.count >= L4J_ROLES || !list.roles || !list.values) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s has %d parts%s, expected 1 to %d with their roles", parts->op,
                        f->name, list.count, list.roles && list.values ? "" : " without roles or values",
                        L4J_ROLES - 1);
    }
    for (int32_t i = 0; i < list.count; i++) {
        int32_t role = list.roles[i];
        if (role < 1 || role >= L4J_ROLES || !(f->roles >> role & 1)) {
            return l4j_fail(error, L4J_EINVAL, "%s: %s has no part of role %d (%s)", parts->op, f->name, role,
                            l4j_role_name(role));
        }
        if (parts->role[role]) {
            return l4j_fail(error, L4J_EINVAL, "%s: %s has two parts %s", parts->op, f->name, l4j_role_name(role));
        }
        parts->role[role] = &list.values[i];
    }
    return L4J_OK;
}

l4j_status l4j_part(const l4j_parts *parts, int32_t role, uint32_t dtypes, int64_t a, int64_t b, l4j_error *error) {
    const l4j_tensor *t = parts->role[role];
    const char *name = l4j_role_name(role);
    if (!t) return l4j_fail(error, L4J_EINVAL, "%s: %s needs a part %s", parts->op, parts->name, name);
    char found[128], wanted[64];
    l4j_describe(t, found, sizeof found);
    snprintf(wanted, sizeof wanted, b ? "[%lld, %lld]" : "[%lld]", (long long)a, (long long)b);
    bool vector = (t->ndim == 1 || (t->ndim == 2 && t->shape[1] == 1)) && t->shape[0] == a && b <= 1;
    bool matrix = t->ndim == 2 && b && t->shape[0] == a && t->shape[1] == b;
    if (t->dtype < L4J_F32 || t->dtype > L4J_BOOL || !(dtypes >> t->dtype & 1) || !(vector || matrix)) {
        char types[64] = "";
        for (int32_t d = L4J_F32; d <= L4J_BOOL; d++) {
            if (!(dtypes >> d & 1)) continue;
            size_t used = strlen(types);
            snprintf(types + used, sizeof types - used, "%s%s", used ? " or " : "", l4j_dtype_name(d));
        }
        return l4j_fail(error, L4J_EINVAL, "%s: %s: %s is %s, expected %s %s for a weight [%lld, %lld]", parts->op,
                        parts->name, name, found, types, wanted, (long long)parts->rows, (long long)parts->cols);
    }
    if (t->device_type != L4J_DEVICE_CPU || t->device_id != 0) {
        return l4j_fail(error, L4J_EDEVICE, "%s: %s lies on device type %d, id %d; expected the host's memory",
                        parts->op, name, t->device_type, t->device_id);
    }
    if (t->reserved) return l4j_fail(error, L4J_EINVAL, "%s: %s.reserved is not zero", parts->op, name);
    if (!t->data) return l4j_fail(error, L4J_EINVAL, "%s: %s.data is NULL", parts->op, name);
    if ((t->shape[t->ndim - 1] > 1 && t->stride[t->ndim - 1] != 1) ||
        (t->ndim == 2 && t->shape[0] > 1 && t->stride[0] != t->shape[1])) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s is %s with strides [%lld, %lld], expected contiguous memory",
                        parts->op, name, found, (long long)t->stride[0], (long long)t->stride[1]);
    }
    if ((uintptr_t)t->data % (uintptr_t)l4j_dtype_bytes(t->dtype) != 0) {
        return l4j_fail(error, L4J_EALIGN, "%s: %s.data is not aligned to its element size", parts->op, name);
    }
    return L4J_OK;
}

l4j_status l4j_part_size(const l4j_parts *parts, int32_t role, int64_t least, int64_t most, int64_t *size,
                         l4j_error *error) {
    L4J_TRY(l4j_part(parts, role, L4J_DTYPE(L4J_I64), 1, 0, error));
    *size = *(const int64_t *)parts->role[role]->data;
    if (*size >= least && *size <= most && (*size & (*size - 1)) == 0) return L4J_OK;
    return l4j_fail(error, L4J_EINVAL, "%s: %s: %s is %lld, expected a power of two from %lld to %lld", parts->op,
                    parts->name, l4j_role_name(role), (long long)*size, (long long)least, (long long)most);
}

l4j_status l4j_quant_open(const char *op, int32_t scheme, int64_t rows, int64_t cols, l4j_part_list list, bool out,
                          l4j_quant *quant, l4j_error *error) {
    const format *f = format_of(scheme);
    l4j_parts parts = {.op = op, .name = f->name, .out = out, .scheme = scheme, .rows = rows, .cols = cols};
    L4J_TRY(find_parts(list, f, &parts, error));
    *quant = (l4j_quant){.scheme = scheme, .rows = rows, .cols = cols};
    L4J_TRY(f->open(&parts, quant, error));
    quant->values = parts.role[L4J_ROLE_VALUES]->data;
    if (parts.role[L4J_ROLE_SCALES]) {
        quant->scales = parts.role[L4J_ROLE_SCALES]->data;
        quant->scale_dtype = parts.role[L4J_ROLE_SCALES]->dtype;
    }
    return L4J_OK;
}
