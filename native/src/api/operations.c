/* The C boundary of the operations: holds the queue, validates, checks the workspace, runs the tier's kernel. */
#include "check.h"

#include <fenv.h>

static l4j_status check_call(const char *op, const l4j_queue *queue, const void *args, size_t struct_size,
                             l4j_error *error) {
    if (!queue || !args) return l4j_fail(error, L4J_EINVAL, "%s: %s is NULL", op, queue ? "args" : "queue");
    return l4j_check_struct(op, *(const uint32_t *)args, struct_size, NULL, 0, error);
}

static l4j_status check_workspace(const char *op, const void *workspace, size_t bytes, size_t needed,
                                  l4j_error *error) {
    if (needed == 0) return L4J_OK;
    if (!workspace || bytes < needed) {
        return l4j_fail(error, L4J_EWORKSPACE, "%s: the workspace has %zu bytes, expected %zu (l4j_%s_workspace tells)",
                        op, workspace ? bytes : (size_t)0, needed, op);
    }
    if ((uintptr_t)workspace % 64 != 0) {
        return l4j_fail(error, L4J_EWORKSPACE, "%s: the workspace is at %p, expected alignment to 64 bytes", op,
                        workspace);
    }
    return L4J_OK;
}

#define L4J_BOUNDARY(op, args_t)                                                                                   \
    l4j_status l4j_##op##_workspace(const l4j_queue *queue, const args_t *args, size_t *bytes, l4j_error *error) { \
        L4J_TRY(l4j_check_pointer(#op, "bytes", bytes, error));                                                    \
        *bytes = 0;                                                                                                \
        L4J_TRY(check_call(#op, queue, args, sizeof *args, error));                                                \
        L4J_TRY(l4j_validate_##op(queue->device, args, error));                                                    \
        *bytes = queue->device->kernels->op##_workspace(queue->threads, args);                                     \
        return L4J_OK;                                                                                             \
    }                                                                                                              \
    l4j_status l4j_##op(l4j_queue *queue, const args_t *args, void *workspace, size_t workspace_bytes,             \
                        l4j_error *error) {                                                                        \
        L4J_TRY(check_call(#op, queue, args, sizeof *args, error));                                                \
        L4J_TRY(l4j_queue_hold(queue, #op, error));                                                                \
        l4j_status status = l4j_validate_##op(queue->device, args, error);                                         \
        if (status == L4J_OK) {                                                                                    \
            size_t needed = queue->device->kernels->op##_workspace(queue->threads, args);                          \
            status = check_workspace(#op, workspace, workspace_bytes, needed, error);                              \
        }                                                                                                          \
        if (status == L4J_OK) {                                                                                    \
            fenv_t callers; /* rounding and subnormals as everywhere, whatever the caller has set */               \
            fegetenv(&callers);                                                                                    \
            fesetenv(FE_DFL_ENV);                                                                                  \
            status = queue->device->kernels->op(queue, args, workspace, error);                                    \
            fesetenv(&callers);                                                                                    \
        }                                                                                                          \
        l4j_queue_release(queue);                                                                                  \
        return status;                                                                                             \
    }
L4J_OPERATIONS(L4J_BOUNDARY)
