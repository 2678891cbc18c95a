/*
 * DLPack in and out. The layouts below are those of the DLPack specification 1.0 (dmlc.github.io/dlpack): an unversioned
 * DLManagedTensor, and DLManagedTensorVersioned, which puts its version first.
 */
#include "check.h"

#include <stdlib.h>

enum { DL_CPU = 1, DL_CUDA = 2, DL_CUDA_HOST = 3, DL_CUDA_MANAGED = 13 };
enum { DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BFLOAT = 4, DL_BOOL = 6 };
enum { DL_MAJOR = 1, DL_MINOR = 0 };

typedef struct {
    int32_t device_type, device_id;
} dl_device;

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} dl_type;

typedef struct {
    void *data;
    dl_device device;
    int32_t ndim;
    dl_type dtype;
    int64_t *shape, *strides; /* strides NULL: contiguous */
    uint64_t byte_offset;
} dl_tensor;

typedef struct dl_managed {
    dl_tensor tensor;
    void *context;
    void (*deleter)(struct dl_managed *self);
} dl_managed;

typedef struct dl_managed_versioned {
    struct {
        uint32_t major, minor;
    } version;
    void *context;
    void (*deleter)(struct dl_managed_versioned *self);
    uint64_t flags;
    dl_tensor tensor;
} dl_managed_versioned;

struct l4j_import {
    dl_managed *plain;
    dl_managed_versioned *versioned;
};

static const struct {
    int32_t dtype;
    uint8_t code, bits;
} types[] = {{L4J_F32, DL_FLOAT, 32}, {L4J_F16, DL_FLOAT, 16}, {L4J_BF16, DL_BFLOAT, 16}, {L4J_F64, DL_FLOAT, 64},
             {L4J_I8, DL_INT, 8},     {L4J_U8, DL_UINT, 8},    {L4J_I16, DL_INT, 16},     {L4J_I32, DL_INT, 32},
             {L4J_I64, DL_INT, 64},   {L4J_BOOL, DL_BOOL, 8}};
enum { TYPES = sizeof types / sizeof *types };

static l4j_status view(const dl_tensor *in, l4j_tensor *out, l4j_error *error) {
    *out = (l4j_tensor){.ndim = in->ndim};
    switch (in->device.device_type) {
    case DL_CPU:
    case DL_CUDA_HOST: out->device_type = L4J_DEVICE_CPU; break; /* pinned memory is the host's */
    case DL_CUDA: out->device_type = L4J_DEVICE_CUDA; break;
    case DL_CUDA_MANAGED:
        return l4j_fail(
            error, L4J_EDEVICE,
            "dlpack_import: the tensor lies in managed CUDA memory (DLPack device type %d), expected the CPU "
            "(%d) or memory of one GPU (%d): copy it there",
            DL_CUDA_MANAGED, DL_CPU, DL_CUDA);
    default:
        return l4j_fail(error, L4J_EDEVICE,
                        "dlpack_import: the tensor lies on DLPack device type %d, expected the CPU (%d) or CUDA (%d)",
                        in->device.device_type, DL_CPU, DL_CUDA);
    }
    if (in->device.device_id < 0) {
        return l4j_fail(error, L4J_EDEVICE, "dlpack_import: the tensor's device id is %d, expected 0 or more",
                        in->device.device_id);
    }
    if (out->device_type == L4J_DEVICE_CUDA) out->device_id = in->device.device_id;
    if (in->ndim < 1 || in->ndim > 4) {
        return l4j_fail(error, L4J_ENOTSUP, "dlpack_import: the tensor has %d dimensions, expected 1 to 4", in->ndim);
    }
    for (int i = 0; i < TYPES; i++) {
        if (in->dtype.code == types[i].code && in->dtype.bits == types[i].bits && in->dtype.lanes == 1)
            out->dtype = types[i].dtype;
    }
    if (!out->dtype) {
        return l4j_fail(error, L4J_ENOTSUP, "dlpack_import: DLPack type {code %d, bits %d, lanes %d} is not supported",
                        in->dtype.code, in->dtype.bits, in->dtype.lanes);
    }
    out->data = in->data ? (char *)in->data + in->byte_offset : NULL;
    int64_t contiguous = 1;
    for (int i = in->ndim - 1; i >= 0; i--) {
        if (in->shape[i] < 0 || (in->shape[i] > 0 && contiguous > L4J_MAX_ELEMENTS / in->shape[i])) {
            return l4j_fail(error, L4J_EINVAL,
                            "dlpack_import: size %d of the shape is %lld, expected 0 or more, at most 2^40 elements", i,
                            (long long)in->shape[i]);
        }
        out->shape[i] = in->shape[i];
        out->stride[i] = in->strides ? in->strides[i] : contiguous;
        contiguous *= in->shape[i];
    }
    return L4J_OK;
}

l4j_status l4j_dlpack_import(void *managed, int32_t versioned, l4j_import **import, l4j_tensor *tensor,
                             l4j_error *error) {
    if (!managed || !import || !tensor) {
        return l4j_fail(error, L4J_EINVAL, "dlpack_import: %s is NULL",
                        !managed  ? "managed"
                        : !import ? "import"
                                  : "tensor");
    }
    *import = NULL;
    if (versioned != 0 && versioned != 1) {
        return l4j_fail(error, L4J_EINVAL, "dlpack_import: versioned is %d, expected 0 or 1", versioned);
    }
    dl_managed_versioned *v = versioned ? managed : NULL;
    if (v && v->version.major != DL_MAJOR) {
        return l4j_fail(error, L4J_ENOTSUP, "dlpack_import: DLPack version %u.%u, expected %d.x", v->version.major,
                        v->version.minor, DL_MAJOR);
    }
    L4J_TRY(view(v ? &v->tensor : &((dl_managed *)managed)->tensor, tensor, error));
    l4j_import *handle = malloc(sizeof *handle);
    if (!handle) return l4j_fail(error, L4J_ENOMEM, "dlpack_import: no memory for %zu bytes", sizeof *handle);
    *handle = (l4j_import){.plain = v ? NULL : managed, .versioned = v};
    *import = handle;
    return L4J_OK;
}

l4j_status l4j_dlpack_release(l4j_import *import, l4j_queue *queue, l4j_error *error) {
    if (!import) return L4J_OK;
    if (queue) L4J_TRY(l4j_queue_synchronize(queue, error));
    if (import->plain && import->plain->deleter) import->plain->deleter(import->plain);
    if (import->versioned && import->versioned->deleter) import->versioned->deleter(import->versioned);
    free(import);
    return L4J_OK;
}

/* An exported tensor: the descriptor and everything that it points to, in one block. */
typedef struct {
    dl_managed_versioned managed;
    int64_t shape[4], strides[4];
    int32_t *released;
} exported;

static void delete_exported(dl_managed_versioned *self) {
    exported *e = self->context;
    int32_t *released = e->released;
    free(e);
    if (released) __atomic_store_n(released, 1, __ATOMIC_RELEASE);
}

l4j_status l4j_dlpack_export(const l4j_tensor *tensor, int32_t *released, void **managed, l4j_error *error) {
    if (!tensor || !managed)
        return l4j_fail(error, L4J_EINVAL, "dlpack_export: %s is NULL", tensor ? "managed" : "tensor");
    *managed = NULL;
    int cuda = tensor->device_type == L4J_DEVICE_CUDA;
    if (cuda ? tensor->device_id < 0 : tensor->device_type != L4J_DEVICE_CPU || tensor->device_id != 0) {
        return l4j_fail(error, L4J_EDEVICE,
                        "dlpack_export: the tensor lies on device type %d, id %d, expected the CPU or a GPU",
                        tensor->device_type, tensor->device_id);
    }
    int type = 0;
    while (type < TYPES && types[type].dtype != tensor->dtype) type++;
    if (type == TYPES || tensor->ndim < 1 || tensor->ndim > 4) {
        char text[128];
        return l4j_fail(error, L4J_EINVAL,
                        "dlpack_export: the tensor is %s in %d dimensions, expected a known dtype and 1 to 4",
                        l4j_describe(tensor, text, sizeof text), tensor->ndim);
    }
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] < 0) {
            return l4j_fail(error, L4J_EINVAL, "dlpack_export: size %d of the shape is %lld, expected 0 or more", i,
                            (long long)tensor->shape[i]);
        }
    }
    exported *e = calloc(1, sizeof *e);
    if (!e) return l4j_fail(error, L4J_ENOMEM, "dlpack_export: no memory for %zu bytes", sizeof *e);
    for (int i = 0; i < tensor->ndim; i++) {
        e->shape[i] = tensor->shape[i];
        e->strides[i] = tensor->stride[i];
    }
    e->released = released;
    e->managed = (dl_managed_versioned){
        .version = {DL_MAJOR, DL_MINOR},
        .context = e,
        .deleter = delete_exported,
        .tensor = {.data = tensor->data,
                   .device = {cuda ? DL_CUDA : DL_CPU, tensor->device_id},
                   .ndim = tensor->ndim,
                   .dtype = {types[type].code, types[type].bits, 1},
                   .shape = e->shape,
                   .strides = e->strides},
    };
    if (released) *released = 0;
    *managed = &e->managed;
    return L4J_OK;
}
