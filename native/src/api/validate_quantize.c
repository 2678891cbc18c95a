/* quantize_forward: every argument, before anything is written. */
#include "check.h"

l4j_status l4j_validate_quantize_forward(const l4j_device *device, const l4j_quantize *args, l4j_error *error) {
    const char *op = "quantize_forward";
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (device->gpu) {
        return l4j_fail(error, L4J_ENOTSUP, "%s: is not done on a GPU; give it to a queue of the CPU", op);
    }
    if (args->flags & ~(uint32_t)L4J_QUANTIZE_GIVEN_OFFSET) {
        return l4j_fail(error, L4J_EINVAL, "%s: flags are 0x%x, expected L4J_QUANTIZE_GIVEN_OFFSET or 0", op,
                        args->flags);
    }
    switch (args->scheme) {
    case L4J_SCHEME_NF4:
    case L4J_SCHEME_FP4:
    case L4J_SCHEME_LLM_INT8:
    case L4J_SCHEME_GGUF_Q4_0:
    case L4J_SCHEME_GGUF_Q4_1:
    case L4J_SCHEME_GGUF_Q5_0:
    case L4J_SCHEME_GGUF_Q8_0:
    case L4J_SCHEME_GGUF_Q4_K:
    case L4J_SCHEME_GGUF_Q6_K: break;
    default:
        return l4j_fail(
            error, L4J_ENOTSUP,
            "%s: scheme %d (%s) cannot be made; expected NF4, FP4, LLM_INT8, GGUF_Q4_0, Q4_1, Q5_0, Q8_0, Q4_K or Q6_K",
            op, args->scheme, l4j_format_name(args->scheme) ? l4j_format_name(args->scheme) : "unknown");
    }
    l4j_expect values = {L4J_EXPECT_STORED, 0, 2, {L4J_ANY, L4J_ANY}, NULL};
    L4J_TRY(l4j_check_tensor(device, op, "x", args->x, values, error));
    if (args->x->shape[0] < 1 || args->x->shape[1] < 1) {
        return l4j_fail(error, L4J_EINVAL, "%s: x is [%lld, %lld], expected at least one value", op,
                        (long long)args->x->shape[0], (long long)args->x->shape[1]);
    }
    l4j_quant quant;
    l4j_part_list list = {args->part_count, args->part_roles, args->part_values};
    return l4j_quant_open(op, args->scheme, args->x->shape[0], args->x->shape[1], list, true, &quant, error);
}
