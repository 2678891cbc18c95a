#include "check.h"

l4j_status l4j_validate_sample_forward(const l4j_device *device, const l4j_sample *args, l4j_error *error) {
    const char *op = "sample_forward";
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->reserved0 != 0) return l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op);
    L4J_TRY(l4j_check_tensor(device, op, "logits", args->logits, (l4j_expect){.ndim = 2, .shape = {L4J_ANY, L4J_ANY}},
                             error));
    if (args->logits->shape[1] < 1 || args->logits->shape[1] > INT32_MAX) {
        return l4j_fail(error, L4J_EINVAL, "%s: logits has %lld columns, expected 1 to 2147483647", op,
                        (long long)args->logits->shape[1]);
    }
    L4J_TRY(l4j_check_live(device, op, "hyper", args->hyper, error));
    return args->logits->shape[0] == 0 ? L4J_OK : l4j_check_live(device, op, "ids", args->ids, error);
}
