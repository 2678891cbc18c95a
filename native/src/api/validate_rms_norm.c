#include "check.h"

/* What both directions share: x (or dy) gives M and N. */
static l4j_status check_common(const l4j_device *device, const char *op, const l4j_rms_norm *args,
                               const char *rows_name, const l4j_tensor *rows, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    L4J_TRY(l4j_check_tensor(device, op, rows_name, rows, (l4j_expect){.ndim = 2, .shape = {L4J_ANY, L4J_ANY}}, error));
    int64_t N = rows->shape[1];
    if (N < 1) return l4j_fail(error, L4J_EINVAL, "%s: %s has rows of length 0, expected 1 or more", op, rows_name);
    if (!(args->eps >= 0 && args->eps <= 1)) {
        return l4j_fail(error, L4J_EINVAL, "%s: eps is %g, expected 0 to 1", op, (double)args->eps);
    }
    return l4j_check_tensor(device, op, "weight", args->weight,
                            (l4j_expect){.dtype = L4J_EXPECT_STORED, .ndim = 1, .shape = {N}}, error);
}

l4j_status l4j_validate_rms_norm_forward(const l4j_device *device, const l4j_rms_norm *args, l4j_error *error) {
    const char *op = "rms_norm_forward";
    L4J_TRY(check_common(device, op, args, "x", args->x, error));
    int64_t M = args->x->shape[0], N = args->x->shape[1];
    l4j_expect in = {.dtype = l4j_like(device, args->x), .ndim = 2, .shape = {M, N}}, out = in;
    out.flags = L4J_EXPECT_OUTPUT;
    if (args->residual) {
        L4J_TRY(l4j_check_tensor(device, op, "residual", args->residual, in, error));
        if (!args->h) {
            return l4j_fail(error, L4J_EINVAL, "%s: h is NULL, expected a tensor because there is a residual", op);
        }
    }
    if (args->h) L4J_TRY(l4j_check_tensor(device, op, "h", args->h, out, error));
    L4J_TRY(l4j_check_tensor(device, op, "y", args->y, out, error));
    l4j_expect rstd = {.dtype = L4J_EXPECT_SUM, .flags = L4J_EXPECT_OUTPUT, .ndim = 1, .shape = {M}};
    return l4j_check_tensor(device, op, "rstd", args->rstd, rstd, error);
}

l4j_status l4j_validate_rms_norm_backward(const l4j_device *device, const l4j_rms_norm *args, l4j_error *error) {
    const char *op = "rms_norm_backward";
    L4J_TRY(check_common(device, op, args, "dy", args->dy, error));
    int64_t M = args->dy->shape[0], N = args->dy->shape[1];
    l4j_expect in = {.dtype = l4j_like(device, args->dy), .ndim = 2, .shape = {M, N}}, out = in;
    out.flags = L4J_EXPECT_OUTPUT;
    L4J_TRY(l4j_check_tensor(device, op, "h", args->h, in, error));
    L4J_TRY(l4j_check_tensor(device, op, "rstd", args->rstd,
                             (l4j_expect){.dtype = L4J_EXPECT_SUM, .ndim = 1, .shape = {M}}, error));
    if (args->dresidual) L4J_TRY(l4j_check_tensor(device, op, "dresidual", args->dresidual, in, error));
    L4J_TRY(l4j_check_tensor(device, op, "dx", args->dx, out, error));
    l4j_expect dweight = {.dtype = L4J_EXPECT_SUM, .flags = L4J_EXPECT_OUTPUT, .ndim = 1, .shape = {N}};
    return args->dweight ? l4j_check_tensor(device, op, "dweight", args->dweight, dweight, error) : L4J_OK;
}
