/* linear_cross_entropy_forward: every argument, before anything is written. */
#include "check.h"

#include <stdio.h>

l4j_status l4j_validate_linear_cross_entropy_forward(const l4j_device *device, const l4j_linear_cross_entropy *args,
                                                     l4j_error *error) {
    const char *op = "linear_cross_entropy_forward";
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    L4J_TRY(l4j_check_compute(device, op, args->compute, error));
    if (args->softcap != 0.0f) {
        return l4j_fail(error, L4J_ENOTSUP, "%s: softcap is %g; it is not supported yet, expected 0", op,
                        (double)args->softcap);
    }
    L4J_TRY(l4j_check_tensor(device, op, "x", args->x, (l4j_expect){L4J_EXPECT_REAL, 0, 2, {L4J_ANY, L4J_ANY}, NULL},
                             error));
    int64_t M = args->x->shape[0], K = args->x->shape[1];
    L4J_TRY(l4j_check_weight(device, op, "weight", args->weight, L4J_ANY, K, error));
    if (args->weight->rows > INT32_MAX) {
        return l4j_fail(error, L4J_EINVAL, "%s: weight has %lld rows, expected at most %d", op,
                        (long long)args->weight->rows, INT32_MAX);
    }
    if (M > INT32_MAX) {
        return l4j_fail(error, L4J_EINVAL, "%s: x has %lld rows, expected at most %d", op, (long long)M, INT32_MAX);
    }
    char why[48];
    snprintf(why, sizeof why, "x has %lld rows", (long long)M);
    l4j_expect per_row = {L4J_EXPECT_SUM, L4J_EXPECT_OUTPUT, 1, {M}, why};
    L4J_TRY(l4j_check_tensor(device, op, "loss", args->loss, per_row, error));
    L4J_TRY(l4j_check_tensor(device, op, "lse", args->lse, per_row, error));
    if (args->dx) {
        l4j_expect like_x = {l4j_like(device, args->x), L4J_EXPECT_OUTPUT, 2, {M, K}, "that is the shape of x"};
        L4J_TRY(l4j_check_tensor(device, op, "dx", args->dx, like_x, error));
        if (args->dx->data && args->dx->data == args->x->data) {
            return l4j_fail(error, L4J_EINVAL, "%s: dx and x have the same memory; an output may not overlap an input",
                            op);
        }
    }
    L4J_TRY(l4j_check_live_or_null(device, op, "row_weight", args->row_weight, error));
    L4J_TRY(l4j_check_live_or_null(device, op, "grad_scale", args->grad_scale, error));
    L4J_TRY(l4j_check_live_or_null(device, op, "step", args->step, error));
    L4J_TRY(l4j_check_live_or_null(device, op, "predicted", args->predicted, error));
    L4J_TRY(l4j_check_live_or_null(device, op, "numeric", args->numeric, error));
    return M > 0 ? l4j_check_live(device, op, "targets", args->targets, error) : L4J_OK;
}
