#include "check.h"

/* gate, which gives M and N, and up. */
static l4j_status check_inputs(const l4j_device *device, const char *op, const l4j_swiglu *args, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->reserved0 != 0) return l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op);
    L4J_TRY(
        l4j_check_tensor(device, op, "gate", args->gate, (l4j_expect){.ndim = 2, .shape = {L4J_ANY, L4J_ANY}}, error));
    l4j_expect in = {
        .dtype = l4j_like(device, args->gate), .ndim = 2, .shape = {args->gate->shape[0], args->gate->shape[1]}};
    return l4j_check_tensor(device, op, "up", args->up, in, error);
}

l4j_status l4j_validate_swiglu_forward(const l4j_device *device, const l4j_swiglu *args, l4j_error *error) {
    const char *op = "swiglu_forward";
    L4J_TRY(check_inputs(device, op, args, error));
    l4j_expect out = {.dtype = l4j_like(device, args->gate),
                      .flags = L4J_EXPECT_OUTPUT,
                      .ndim = 2,
                      .shape = {args->gate->shape[0], args->gate->shape[1]}};
    return l4j_check_tensor(device, op, "out", args->out, out, error);
}

l4j_status l4j_validate_swiglu_backward(const l4j_device *device, const l4j_swiglu *args, l4j_error *error) {
    const char *op = "swiglu_backward";
    L4J_TRY(check_inputs(device, op, args, error));
    l4j_expect in = {.dtype = l4j_like(device, args->gate),
                     .ndim = 2,
                     .shape = {args->gate->shape[0], args->gate->shape[1]}},
               out = in;
    out.flags = L4J_EXPECT_OUTPUT;
    L4J_TRY(l4j_check_tensor(device, op, "dout", args->dout, in, error));
    L4J_TRY(l4j_check_tensor(device, op, "dgate", args->dgate, out, error));
    L4J_TRY(l4j_check_tensor(device, op, "dup", args->dup, out, error));
    if (args->dgate->data == args->dup->data && args->dup->shape[0] * args->dup->shape[1] > 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: dgate and dup are the same memory, expected two tensors", op);
    }
    return L4J_OK;
}
