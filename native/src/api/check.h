/* Checks that the operations' validators share. A message names the operation and argument, what was found, what was expected. */
#ifndef L4J_CHECK_H
#define L4J_CHECK_H

#include "cpu/internal.h"

enum {
    L4J_EXPECT_REAL = 0,     /* activations: F32; F64 on the oracle; F32, F16 or BF16 on a GPU */
    L4J_EXPECT_SUM = -2,     /* statistics, gradients of parameters, optimizer state: F32; F64 on the oracle */
    L4J_EXPECT_STORED = -1,  /* F32, F16 or BF16; F64 too on the oracle */
    L4J_EXPECT_OUTPUT = 1,   /* flag: written to: innermost stride 1, no element twice */
    L4J_EXPECT_OPTIONAL = 2, /* flag: NULL, or data NULL, is fine */
};
#define L4J_ANY ((int64_t)-1)

/* What a tensor argument must be. A dimension of L4J_ANY may have any size. `why` (may be NULL) ends the message: "because ...". */
typedef struct l4j_expect {
    int32_t dtype; /* L4J_EXPECT_REAL, L4J_EXPECT_STORED or a dtype */
    int32_t flags;
    int32_t ndim;
    int64_t shape[4];
    const char *why;
} l4j_expect;

l4j_status l4j_check_tensor(const l4j_device *device, const char *op, const char *name, const l4j_tensor *tensor,
                            l4j_expect expect, l4j_error *error);
/* struct_size, and all reserved words zero. */
l4j_status l4j_check_struct(const char *op, uint32_t found, size_t expected, const int64_t *reserved,
                            int reserved_count, l4j_error *error);
l4j_status l4j_check_compute(const l4j_device *device, const char *op, int32_t compute, l4j_error *error);
l4j_status l4j_check_pointer(const char *op, const char *name, const void *pointer, l4j_error *error);
l4j_status l4j_check_weight(const l4j_device *device, const char *op, const char *name, const l4j_weight *weight,
                            int64_t rows, int64_t cols, l4j_error *error);
const char *l4j_dtype_name(int32_t dtype);
int l4j_dtype_bytes(int32_t dtype); /* of a known one */
/* "F32 [4, 576]" */
const char *l4j_describe(const l4j_tensor *tensor, char *text, size_t capacity);

/* A pointer to what an operation reads when it runs: not NULL, and the GPU's if the device is one. */
l4j_status l4j_check_live(const l4j_device *device, const char *op, const char *name, const void *pointer,
                          l4j_error *error);

/* The same for a pointer that may be NULL. */
static inline l4j_status l4j_check_live_or_null(const l4j_device *device, const char *op, const char *name,
                                                const void *pointer, l4j_error *error) {
    return pointer ? l4j_check_live(device, op, name, pointer, error) : L4J_OK;
}

/* The dtype of sums on this device, and of activations on a CPU. */
static inline int32_t l4j_real_dtype(const l4j_device *device) {
    return device->isa == L4J_ISA_REF64 ? L4J_F64 : L4J_F32;
}
/* What further activations of a call must be: all are of one dtype. */
static inline int32_t l4j_like(const l4j_device *device, const l4j_tensor *first) {
    return device->gpu ? first->dtype : L4J_EXPECT_REAL;
}
static inline int32_t l4j_device_type(const l4j_device *device) {
    return device->gpu ? L4J_DEVICE_CUDA : L4J_DEVICE_CPU;
}
static inline bool l4j_present(const l4j_tensor *tensor) { return tensor && tensor->data; }

#define L4J_TRY(call)                          \
    do {                                       \
        l4j_status status_ = (call);           \
        if (status_ != L4J_OK) return status_; \
    } while (0)

#define L4J_VALIDATOR(op, args_t) \
    l4j_status l4j_validate_##op(const l4j_device *device, const args_t *args, l4j_error *error);
L4J_OPERATIONS(L4J_VALIDATOR)
#undef L4J_VALIDATOR

#endif
