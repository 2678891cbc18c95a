#include "check.h"
#include "cpu/values.h"

#include <math.h>

static l4j_status check_common(const l4j_device *device, const char *op, const l4j_attention *args, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->flags & ~(uint32_t)L4J_ATTENTION_CAUSAL) {
        return l4j_fail(error, L4J_EINVAL, "%s: flags are 0x%x, expected L4J_ATTENTION_CAUSAL or 0", op, args->flags);
    }
    if (!isfinite(args->scale)) {
        return l4j_fail(error, L4J_EINVAL, "%s: scale is %g, expected a finite value", op, (double)args->scale);
    }
    if (args->softcap != 0) {
        return l4j_fail(error, L4J_ENOTSUP, "%s: softcap is %g; soft-capped scores are not supported yet, expected 0",
                        op, (double)args->softcap);
    }
    if (args->window < 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: window is %d, expected 1 or more, or 0 for none", op, args->window);
    }
    if (args->window > 0 && !(args->flags & L4J_ATTENTION_CAUSAL)) {
        return l4j_fail(error, L4J_EINVAL, "%s: window is %d without L4J_ATTENTION_CAUSAL, expected 0", op,
                        args->window);
    }
    if (args->sequences < 0 || args->max_q_length < 0 || args->max_q_length > INT32_MAX || args->max_kv_length < 0 ||
        args->max_kv_length > INT32_MAX) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: sequences, max_q_length and max_kv_length are %d, %lld and %lld, expected 0 to %d", op,
                        args->sequences, (long long)args->max_q_length, (long long)args->max_kv_length, INT32_MAX);
    }
    if (args->sequences > 0) {
        L4J_TRY(l4j_check_live(device, op, "q_offsets", args->q_offsets, error));
        L4J_TRY(l4j_check_live(device, op, "kv_starts", args->kv_starts, error));
        L4J_TRY(l4j_check_live(device, op, "kv_lengths", args->kv_lengths, error));
    }
    l4j_expect any = {.ndim = 3, .shape = {L4J_ANY, L4J_ANY, L4J_ANY}};
    L4J_TRY(l4j_check_tensor(device, op, "q", args->q, any, error));
    int64_t D = args->q->shape[2];
    if (D < 1 || D > L4J_ATTENTION_MAX_D) {
        return l4j_fail(error, D < 1 ? L4J_EINVAL : L4J_ENOTSUP, "%s: q has a head dimension of %lld, expected 1 to %d",
                        op, (long long)D, L4J_ATTENTION_MAX_D);
    }
    any.dtype = l4j_like(device, args->q);
    any.shape[2] = D;
    any.why = "q has that head dimension";
    L4J_TRY(l4j_check_tensor(device, op, "k", args->k, any, error));
    int64_t Hq = args->q->shape[1], Hkv = args->k->shape[1];
    if (Hq < 1 || Hkv < 1 || Hq % Hkv != 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: q has %lld heads and k has %lld, expected a multiple of k's for q", op,
                        (long long)Hq, (long long)Hkv);
    }
    l4j_expect v = {.dtype = any.dtype, .ndim = 3, .shape = {args->k->shape[0], Hkv, D}, .why = "k has that shape"};
    return l4j_check_tensor(device, op, "v", args->v, v, error);
}

l4j_status l4j_validate_attention_forward(const l4j_device *device, const l4j_attention *args, l4j_error *error) {
    const char *op = "attention_forward";
    L4J_TRY(check_common(device, op, args, error));
    const int64_t *q = args->q->shape;
    l4j_expect o = {.dtype = l4j_like(device, args->q),
                    .flags = L4J_EXPECT_OUTPUT,
                    .ndim = 3,
                    .shape = {q[0], q[1], q[2]},
                    .why = "q has that shape"};
    l4j_expect lse = {.dtype = L4J_EXPECT_SUM, .flags = L4J_EXPECT_OUTPUT, .ndim = 2, .shape = {q[0], q[1]}};
    L4J_TRY(l4j_check_tensor(device, op, "o", args->o, o, error));
    return args->lse ? l4j_check_tensor(device, op, "lse", args->lse, lse, error) : L4J_OK;
}

l4j_status l4j_validate_attention_backward(const l4j_device *device, const l4j_attention *args, l4j_error *error) {
    const char *op = "attention_backward";
    L4J_TRY(check_common(device, op, args, error));
    const int64_t *q = args->q->shape, *k = args->k->shape;
    l4j_expect like_q = {
        .dtype = l4j_like(device, args->q), .ndim = 3, .shape = {q[0], q[1], q[2]}, .why = "q has that shape"};
    l4j_expect like_k = {.dtype = l4j_like(device, args->q),
                         .flags = L4J_EXPECT_OUTPUT,
                         .ndim = 3,
                         .shape = {k[0], k[1], k[2]},
                         .why = "k has that shape"};
    L4J_TRY(l4j_check_tensor(device, op, "o", args->o, like_q, error));
    L4J_TRY(l4j_check_tensor(device, op, "lse", args->lse,
                             (l4j_expect){.dtype = L4J_EXPECT_SUM, .ndim = 2, .shape = {q[0], q[1]}}, error));
    L4J_TRY(l4j_check_tensor(device, op, "d_o", args->d_o, like_q, error));
    like_q.flags = L4J_EXPECT_OUTPUT;
    L4J_TRY(l4j_check_tensor(device, op, "dq", args->dq, like_q, error));
    L4J_TRY(l4j_check_tensor(device, op, "dk", args->dk, like_k, error));
    return l4j_check_tensor(device, op, "dv", args->dv, like_k, error);
}
