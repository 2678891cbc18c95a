/* embedding_forward and embedding_backward: every argument, before anything is written. */
#include "check.h"

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
    return args->out->shape[0] > 0 ? l4j_check_live(device, op, "ids", args->ids, error) : L4J_OK;
}

l4j_status l4j_validate_embedding_backward(const l4j_device *device, const l4j_embedding *args, l4j_error *error) {
    const char *op = "embedding_backward";
    L4J_TRY(check_scalars(op, args, error));
    l4j_expect rows = {L4J_EXPECT_REAL, 0, 2, {L4J_ANY, L4J_ANY}, NULL};
    L4J_TRY(l4j_check_tensor(device, op, "dout", args->dout, rows, error));
    l4j_expect table = {
        L4J_EXPECT_SUM, L4J_EXPECT_OUTPUT, 2, {L4J_ANY, args->dout->shape[1]}, "dout has that many columns"};
    L4J_TRY(l4j_check_tensor(device, op, "dweight", args->dweight, table, error));
    if (args->dweight->data && args->dweight->data == args->dout->data) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: dweight and dout have the same memory; an output may not overlap an input", op);
    }
    return args->dout->shape[0] > 0 ? l4j_check_live(device, op, "ids", args->ids, error) : L4J_OK;
}
