#include "check.h"
#include "cuda/backend.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int bytes;
} dtypes[] = {[L4J_F32] = {"F32", 4}, [L4J_F16] = {"F16", 2},  [L4J_BF16] = {"BF16", 2}, [L4J_F64] = {"F64", 8},
              [L4J_I8] = {"I8", 1},   [L4J_U8] = {"U8", 1},    [L4J_I16] = {"I16", 2},   [L4J_I32] = {"I32", 4},
              [L4J_I64] = {"I64", 8}, [L4J_BOOL] = {"BOOL", 1}};

static bool known_dtype(int32_t dtype) { return dtype >= L4J_F32 && dtype <= L4J_BOOL; }

const char *l4j_dtype_name(int32_t dtype) { return known_dtype(dtype) ? dtypes[dtype].name : "unknown"; }
int l4j_dtype_bytes(int32_t dtype) { return dtypes[dtype].bytes; }

const char *l4j_describe(const l4j_tensor *t, char *text, size_t capacity) {
    int n = known_dtype(t->dtype) ? snprintf(text, capacity, "%s [", dtypes[t->dtype].name)
                                  : snprintf(text, capacity, "dtype %d [", t->dtype);
    if (t->ndim < 1 || t->ndim > 4) {
        snprintf(text + n, capacity - (size_t)n, "?] with ndim %d", t->ndim);
        return text;
    }
    for (int i = 0; i < t->ndim && n < (int)capacity; i++) {
        n += snprintf(text + n, capacity - (size_t)n, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    }
    if (n < (int)capacity) snprintf(text + n, capacity - (size_t)n, "]");
    return text;
}

static void describe_expected(const l4j_device *device, const l4j_expect *e, char *text, size_t capacity) {
    bool real = e->dtype == L4J_EXPECT_SUM || (e->dtype == L4J_EXPECT_REAL && !device->gpu);
    int32_t dtype = real ? l4j_real_dtype(device) : e->dtype;
    int n = snprintf(text, capacity, "%s [", dtype <= 0 ? "F32, F16 or BF16" : dtypes[dtype].name);
    for (int i = 0; i < e->ndim; i++) {
        n += e->shape[i] == L4J_ANY
                 ? snprintf(text + n, capacity - (size_t)n, i ? ", any" : "any")
                 : snprintf(text + n, capacity - (size_t)n, i ? ", %lld" : "%lld", (long long)e->shape[i]);
    }
    snprintf(text + n, capacity - (size_t)n, "]");
}

static bool dtype_fits(const l4j_device *device, int32_t expected, int32_t found) {
    if (expected == L4J_EXPECT_SUM || (expected == L4J_EXPECT_REAL && !device->gpu)) {
        return found == l4j_real_dtype(device);
    }
    if (expected == L4J_EXPECT_STORED || expected == L4J_EXPECT_REAL) {
        return found == L4J_F32 || found == L4J_F16 || found == L4J_BF16 ||
               (found == L4J_F64 && device->isa == L4J_ISA_REF64);
    }
    return found == expected;
}

/* Whether no two elements share an address and the last dimension is contiguous. */
static bool output_strides(const l4j_tensor *t) {
    int order[4], n = 0;
    for (int i = 0; i < t->ndim; i++) {
        if (t->shape[i] == 0) return true;
        if (t->shape[i] == 1) continue;
        int at = n++;
        while (at > 0 && t->stride[order[at - 1]] > t->stride[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    int last = t->ndim - 1;
    if (t->shape[last] > 1 && t->stride[last] != 1) return false;
    int64_t reach = 1;
    for (int i = 0; i < n; i++) {
        int64_t stride = t->stride[order[i]];
        if (stride < reach || __builtin_mul_overflow(stride, t->shape[order[i]], &reach)) return false;
    }
    return true;
}

l4j_status l4j_check_tensor(const l4j_device *device, const char *op, const char *name, const l4j_tensor *t,
                            l4j_expect expect, l4j_error *error) {
    if (!l4j_present(t) && (expect.flags & L4J_EXPECT_OPTIONAL)) return L4J_OK;
    if (!t) return l4j_fail(error, L4J_EINVAL, "%s: %s is NULL", op, name);
    char found[128], wanted[128];
    bool fits = t->ndim == expect.ndim && known_dtype(t->dtype) && dtype_fits(device, expect.dtype, t->dtype);
    for (int i = 0; fits && i < expect.ndim; i++) {
        fits = t->shape[i] >= 0 && (expect.shape[i] == L4J_ANY || expect.shape[i] == t->shape[i]);
    }
    if (!fits) {
        describe_expected(device, &expect, wanted, sizeof wanted);
        return l4j_fail(error, L4J_EINVAL, "%s: %s is %s, expected %s%s%s", op, name,
                        l4j_describe(t, found, sizeof found), wanted, expect.why ? " because " : "",
                        expect.why ? expect.why : "");
    }
    int64_t elements = 1;
    for (int i = 0; i < t->ndim; i++) {
        if (__builtin_mul_overflow(elements, t->shape[i], &elements) || elements > L4J_MAX_ELEMENTS) {
            return l4j_fail(error, L4J_EINVAL, "%s: %s is %s, expected at most 2^40 elements", op, name,
                            l4j_describe(t, found, sizeof found));
        }
    }
    if (t->device_type != l4j_device_type(device) || t->device_id != device->id) {
        return device->gpu
                   ? l4j_fail(error, L4J_EDEVICE, "%s: %s lies on device type %d, id %d; the queue's device is GPU %d",
                              op, name, t->device_type, t->device_id, device->id)
                   : l4j_fail(error, L4J_EDEVICE, "%s: %s lies on device type %d, id %d; the queue's device is the CPU",
                              op, name, t->device_type, t->device_id);
    }
    if (t->reserved != 0) return l4j_fail(error, L4J_EINVAL, "%s: %s.reserved is not zero", op, name);
    if (elements == 0) return L4J_OK;
    if (!t->data) return l4j_fail(error, L4J_EINVAL, "%s: %s.data is NULL", op, name);
    if ((uintptr_t)t->data % (uintptr_t)dtypes[t->dtype].bytes != 0) {
        return l4j_fail(error, L4J_EALIGN, "%s: %s.data is not aligned to its element size of %d bytes", op, name,
                        dtypes[t->dtype].bytes);
    }
    if (device->gpu && !device->gpu->accessible(device->id, t->data)) {
        return l4j_fail(error, L4J_EDEVICE, "%s: %s.data is not memory of GPU %d; copy it there first", op, name,
                        device->id);
    }
    if ((expect.flags & L4J_EXPECT_OUTPUT) && !output_strides(t)) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: %s is %s with strides [%lld, %lld, %lld, %lld]; an output needs an innermost stride of 1 "
                        "and rows that "
                        "do not overlap",
                        op, name, l4j_describe(t, found, sizeof found), (long long)t->stride[0],
                        (long long)t->stride[1], (long long)t->stride[2], (long long)t->stride[3]);
    }
    return L4J_OK;
}

l4j_status l4j_check_struct(const char *op, uint32_t found, size_t expected, const int64_t *reserved,
                            int reserved_count, l4j_error *error) {
    if (found != expected) {
        return l4j_fail(error, L4J_EABI,
                        "%s: struct_size is %u, expected %zu; compile against this library's lora4j.h (ABI %d.%d)", op,
                        found, expected, L4J_ABI_MAJOR, L4J_ABI_MINOR);
    }
    for (int i = 0; i < reserved_count; i++) {
        if (reserved[i] != 0) return l4j_fail(error, L4J_EINVAL, "%s: reserved[%d] is not zero", op, i);
    }
    return L4J_OK;
}

l4j_status l4j_check_compute(const l4j_device *device, const char *op, int32_t compute, l4j_error *error) {
    if (device->gpu && compute == L4J_COMPUTE_BF16)
        return l4j_fail(error, L4J_ENOTSUP, "%s: compute is L4J_COMPUTE_BF16; expected L4J_COMPUTE_F32 on a GPU", op);
    if (compute == L4J_COMPUTE_F32 || compute == L4J_COMPUTE_BF16) return L4J_OK;
    return l4j_fail(error, L4J_EINVAL, "%s: compute is %d, expected L4J_COMPUTE_F32 or L4J_COMPUTE_BF16", op, compute);
}

l4j_status l4j_check_pointer(const char *op, const char *name, const void *pointer, l4j_error *error) {
    return pointer ? L4J_OK : l4j_fail(error, L4J_EINVAL, "%s: %s is NULL", op, name);
}

l4j_status l4j_check_live(const l4j_device *device, const char *op, const char *name, const void *pointer,
                          l4j_error *error) {
    L4J_TRY(l4j_check_pointer(op, name, pointer, error));
    if (device->gpu && !device->gpu->accessible(device->id, pointer)) {
        return l4j_fail(error, L4J_EDEVICE, "%s: %s is not memory of GPU %d; copy it there first", op, name,
                        device->id);
    }
    return L4J_OK;
}

l4j_status l4j_check_weight(const l4j_device *device, const char *op, const char *name, const l4j_weight *weight,
                            int64_t rows, int64_t cols, l4j_error *error) {
    if (!weight) return l4j_fail(error, L4J_EINVAL, "%s: %s is NULL", op, name);
    if (weight->device != device) return l4j_fail(error, L4J_EDEVICE, "%s: %s belongs to another device", op, name);
    if ((rows != L4J_ANY && weight->rows != rows) || (cols != L4J_ANY && weight->cols != cols)) {
        char wanted[2][24];
        for (int i = 0; i < 2; i++) {
            int64_t n = i == 0 ? rows : cols;
            if (n == L4J_ANY) {
                strcpy(wanted[i], "any");
            } else {
                snprintf(wanted[i], sizeof wanted[i], "%lld", (long long)n);
            }
        }
        return l4j_fail(error, L4J_EINVAL, "%s: %s is [%lld, %lld], expected [%s, %s]", op, name,
                        (long long)weight->rows, (long long)weight->cols, wanted[0], wanted[1]);
    }
    return L4J_OK;
}
