#include "check.h"

static l4j_status check(const l4j_device *device, const char *op, const l4j_rope *args, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->flags & ~(uint32_t)L4J_ROPE_INTERLEAVED) {
        return l4j_fail(error, L4J_EINVAL, "%s: flags are 0x%x, expected L4J_ROPE_INTERLEAVED or 0", op, args->flags);
    }
    l4j_expect any3 = {.ndim = 3, .shape = {L4J_ANY, L4J_ANY, L4J_ANY}},
               any2 = {.dtype = L4J_EXPECT_SUM, .ndim = 2, .shape = {L4J_ANY, L4J_ANY}};
    L4J_TRY(l4j_check_tensor(device, op, "src", args->src, any3, error));
    const int64_t *shape = args->src->shape;
    l4j_expect dst = {.dtype = l4j_like(device, args->src),
                      .flags = L4J_EXPECT_OUTPUT,
                      .ndim = 3,
                      .shape = {shape[0], shape[1], shape[2]}};
    L4J_TRY(l4j_check_tensor(device, op, "dst", args->dst, dst, error));
    L4J_TRY(l4j_check_tensor(device, op, "cosine", args->cosine, any2, error));
    int64_t positions = args->cosine->shape[0], half = args->cosine->shape[1];
    if (2 * half > shape[2]) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: cosine has %lld columns, expected at most %lld, half of the head dimension %lld", op,
                        (long long)half, (long long)(shape[2] / 2), (long long)shape[2]);
    }
    L4J_TRY(l4j_check_tensor(device, op, "sine", args->sine,
                             (l4j_expect){.dtype = L4J_EXPECT_SUM, .ndim = 2, .shape = {positions, half}}, error));
    return shape[0] == 0 ? L4J_OK : l4j_check_live(device, op, "positions", args->positions, error);
}

l4j_status l4j_validate_rope_forward(const l4j_device *device, const l4j_rope *args, l4j_error *error) {
    return check(device, "rope_forward", args, error);
}

l4j_status l4j_validate_rope_backward(const l4j_device *device, const l4j_rope *args, l4j_error *error) {
    return check(device, "rope_backward", args, error);
}
