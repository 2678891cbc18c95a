#include "check.h"

l4j_status l4j_validate_axpby_forward(const l4j_device *device, const l4j_axpby *args, l4j_error *error) {
    const char *op = "axpby_forward";
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->reserved0 != 0) return l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op);
    L4J_TRY(l4j_check_live(device, op, "alpha", args->alpha, error));
    L4J_TRY(l4j_check_live(device, op, "beta", args->beta, error));
    L4J_TRY(l4j_check_tensor(device, op, "x", args->x, (l4j_expect){.ndim = 2, .shape = {L4J_ANY, L4J_ANY}}, error));
    l4j_expect y = {.flags = L4J_EXPECT_OUTPUT, .ndim = 2, .shape = {args->x->shape[0], args->x->shape[1]}};
    return l4j_check_tensor(device, op, "y", args->y, y, error);
}
