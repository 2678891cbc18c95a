/* dequantize_forward: every argument, before anything is written. */
#include "check.h"

l4j_status l4j_validate_dequantize_forward(const l4j_device *device, const l4j_dequantize *args, l4j_error *error) {
    const char *op = "dequantize_forward";
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->reserved0) return l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op);
    L4J_TRY(l4j_check_weight(device, op, "weight", args->weight, L4J_ANY, L4J_ANY, error));
    l4j_expect rows = {
        L4J_EXPECT_REAL, L4J_EXPECT_OUTPUT, 2, {L4J_ANY, args->weight->cols}, "weight has that many columns"};
    L4J_TRY(l4j_check_tensor(device, op, "out", args->out, rows, error));
    int64_t N = args->weight->rows, count = args->out->shape[0];
    if (args->row_begin < 0 || args->row_begin > N || count > N - args->row_begin) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: row_begin is %lld and out has %lld rows; expected rows within the weight's %lld", op,
                        (long long)args->row_begin, (long long)count, (long long)N);
    }
    return L4J_OK;
}
