/* embedding_forward and embedding_backward: every argument and every id, before anything is written. */
#include "check.h"

static l4j_status check_ids(const char *op, const l4j_embedding *args, int64_t M, int64_t V, l4j_error *error) {
    if (M > 0) L4J_TRY(l4j_check_pointer(op, "ids", args->ids, error));
    for (int64_t m = 0; m < M; m++) {
        if (args->ids[m] < 0 || args->ids[m] >= V) {
            return l4j_fail(error, L4J_EINVAL, "%s: ids[%lld] is %d, expected 0 to %lld", op, (long long)m,
                            args->ids[m], (long long)(V - 1));
        }
    }
    return L4J_OK;
}

static l4j_status check_scalars(const char *op, const l4j_embedding *args, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    return args->reserved0 ? l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op) : L4J_OK;
}

l4j_status l4j_validate_embedding_forward(const l4j_device *device, const l4j_embedding *args, l4j_error *error) {
    const char *op = "embedding_forward";
    L4J_TRY(check_scalars(op, args, error));
    L4J_TRY(l4j_check_weight(device, op, "weight", args->weight, L4J_ANY, L4J_ANY, error));
    l4j_expect rows = {
        L4J_EXPECT_REAL, L4J_EXPECT_OUTPUT, 2, {L4J_ANY, args->weight->cols}, "weight has that many columns"};
    L4J_TRY(l4j_check_tensor(device, op, "out", args->out, rows, error));
    return check_ids(op, args, args->out->shape[0], args->weight->rows, error);
}

l4j_status l4j_validate_embedding_backward(const l4j_device *device, const l4j_embedding *args, l4j_error *error) {
    const char *op = "embedding_backward";
    L4J_TRY(check_scalars(op, args, error));
    l4j_expect rows = {L4J_EXPECT_REAL, 0, 2, {L4J_ANY, L4J_ANY}, NULL};
    L4J_TRY(l4j_check_tensor(device, op, "dout", args->dout, rows, error));
    l4j_expect table = {
        L4J_EXPECT_REAL, L4J_EXPECT_OUTPUT, 2, {L4J_ANY, args->dout->shape[1]}, "dout has that many columns"};
    L4J_TRY(l4j_check_tensor(device, op, "dweight", args->dweight, table, error));
    if (args->dweight->data && args->dweight->data == args->dout->data) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: dweight and dout have the same memory; an output may not overlap an input", op);
    }
    return check_ids(op, args, args->dout->shape[0], args->dweight->shape[0], error);
}
