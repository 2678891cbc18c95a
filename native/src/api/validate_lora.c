/* lora_forward and lora_backward: every argument, before anything is written. */
#include "check.h"
#include "cpu/dropout.h"

#include <stdio.h>

enum { MAX_PROJECTIONS = 16, MAX_ADAPTERS = 65536 };

static l4j_status check_unsupported(const l4j_device *device, const char *op, const l4j_lora *args, l4j_error *error) {
    if (args->magnitudes)
        return l4j_fail(error, L4J_ENOTSUP, "%s: magnitudes (DoRA) are not supported yet; expected NULL", op);
    if (args->compute != L4J_COMPUTE_INT8) return l4j_check_compute(device, op, args->compute, error);
    if (!device->gpu) return L4J_OK;
    return l4j_fail(error, L4J_ENOTSUP, "%s: compute is L4J_COMPUTE_INT8; expected L4J_COMPUTE_F32 on a GPU", op);
}

/* Products of bytes: forward, of weights that are integers with scales for stretches of a row. */
static l4j_status check_int8(const char *op, const l4j_lora *args, bool forward, l4j_error *error) {
    if (args->compute != L4J_COMPUTE_INT8) return L4J_OK;
    if (!forward) {
        return l4j_fail(error, L4J_ENOTSUP,
                        "%s: compute is L4J_COMPUTE_INT8, which is for inference and has no gradient; expected "
                        "L4J_COMPUTE_F32 or L4J_COMPUTE_BF16",
                        op);
    }
    for (int g = 0; g < args->projection_count; g++) {
        int32_t scheme = args->weights[g]->scheme;
        if (l4j_is_gguf(scheme)) continue;
        return l4j_fail(error, L4J_ENOTSUP,
                        "%s: compute is L4J_COMPUTE_INT8 and weights[%d] is %s; expected a GGUF format, or "
                        "L4J_COMPUTE_F32",
                        op, g, scheme == L4J_SCHEME_DENSE ? "dense" : l4j_format_name(scheme));
    }
    return L4J_OK;
}

/* Whether the rows' adapters are given; what the segments say is checked when the operation runs. */
static l4j_status check_segments(const l4j_device *device, const char *op, const l4j_lora *args, l4j_error *error) {
    if (args->segment_capacity < 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: segment_capacity is %d, expected at least 0", op,
                        args->segment_capacity);
    }
    if (args->segment_capacity > 0) {
        L4J_TRY(l4j_check_live(device, op, "segment_count", args->segment_count, error));
        L4J_TRY(l4j_check_live(device, op, "segment_offsets", args->segment_offsets, error));
        return l4j_check_live(device, op, "segment_adapters", args->segment_adapters, error);
    }
    if (args->adapter_count > 1) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: adapter_count is %d but segment_capacity is 0; expected segments that give the rows' "
                        "adapters",
                        op, args->adapter_count);
    }
    if (args->segment_count || args->segment_offsets || args->segment_adapters) {
        return l4j_fail(error, L4J_EINVAL, "%s: segments are given but segment_capacity is 0; expected NULL", op);
    }
    return L4J_OK;
}

static l4j_status check_scalars(const l4j_device *device, const char *op, const l4j_lora *args, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 8, error));
    if (args->reserved0) return l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op);
    uint32_t known = L4J_LORA_ACCUMULATE_GRADS | L4J_LORA_ACCUMULATE_DX | L4J_LORA_BATCH_DEPENDENT;
    if (args->flags & ~known) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: flags are 0x%x, expected L4J_LORA_ACCUMULATE_GRADS, L4J_LORA_ACCUMULATE_DX and "
                        "L4J_LORA_BATCH_DEPENDENT",
                        op, args->flags);
    }
    if (args->projection_count < 1 || args->projection_count > MAX_PROJECTIONS) {
        return l4j_fail(error, L4J_EINVAL, "%s: projection_count is %d, expected 1 to %d", op, args->projection_count,
                        MAX_PROJECTIONS);
    }
    if (args->adapter_count < 0 || args->adapter_count > MAX_ADAPTERS) {
        return l4j_fail(error, L4J_EINVAL, "%s: adapter_count is %d, expected 0 to %d", op, args->adapter_count,
                        MAX_ADAPTERS);
    }
    L4J_TRY(check_unsupported(device, op, args, error));
    L4J_TRY(check_segments(device, op, args, error));
    float p = args->dropout_p;
    if (!(p >= 0.0f && p < 1.0f)) {
        return l4j_fail(error, L4J_EINVAL, "%s: dropout_p is %g, expected 0 <= p < 1", op, (double)p);
    }
    if (p > 0.0f && (l4j_dropout_threshold(p) == 0 || l4j_dropout_threshold(p) == 65536)) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: dropout_p is %g, which is %u of 65536; expected 0, or 1 to 65535 of 65536", op, (double)p,
                        l4j_dropout_threshold(p));
    }
    return L4J_OK;
}

static l4j_status check_dropout(const l4j_device *device, const char *op, const l4j_lora *args, l4j_error *error) {
    L4J_TRY(l4j_check_live(device, op, "dropout_seed", args->dropout_seed, error));
    L4J_TRY(l4j_check_live(device, op, "dropout_step", args->dropout_step, error));
    if (args->x->shape[0] > 0) L4J_TRY(l4j_check_live(device, op, "token_index", args->token_index, error));
    L4J_TRY(l4j_check_live(device, op, "module_id", args->module_id, error));
    return l4j_check_live(device, op, "adapter_id", args->adapter_id, error);
}

static bool has_adapter(const l4j_lora *args, int adapter, int g) {
    return args->a[adapter * args->projection_count + g].data != NULL;
}

/* Columns of s_g: the highest rank of its adapters, 0 without any. */
static int64_t widest_rank(const l4j_lora *args, int g) {
    int64_t rank = 0;
    for (int i = 0; i < args->adapter_count; i++) {
        int64_t own = has_adapter(args, i, g) ? args->a[i * args->projection_count + g].shape[0] : 0;
        rank = own > rank ? own : rank;
    }
    return rank;
}

/* A and B at `i` of projection g. */
static l4j_status check_adapter(const l4j_device *device, const char *op, const l4j_lora *args, int i, int g,
                                l4j_error *error) {
    int64_t K = args->x->shape[1], N = args->weights[g]->rows;
    char name[32], x_columns[48], shape[128];
    if (!args->a[i].data) {
        if (!args->b[i].data) return L4J_OK;
        return l4j_fail(error, L4J_EINVAL, "%s: b[%d] is given but a[%d].data is NULL; expected both or neither", op, i,
                        i);
    }
    snprintf(x_columns, sizeof x_columns, "x has %lld columns", (long long)K);
    snprintf(name, sizeof name, "a[%d]", i);
    L4J_TRY(l4j_check_tensor(device, op, name, &args->a[i],
                             (l4j_expect){L4J_EXPECT_REAL, 0, 2, {L4J_ANY, K}, x_columns}, error));
    int64_t rank = args->a[i].shape[0];
    if (rank < 1) return l4j_fail(error, L4J_EINVAL, "%s: a[%d] has rank 0, expected at least 1", op, i);
    snprintf(name, sizeof name, "b[%d]", i);
    snprintf(shape, sizeof shape, "weights[%d] has %lld rows and a[%d] has rank %lld", g, (long long)N, i,
             (long long)rank);
    return l4j_check_tensor(device, op, name, &args->b[i], (l4j_expect){L4J_EXPECT_REAL, 0, 2, {N, rank}, shape},
                            error);
}

/* x, the weights, biases and adapters: what both directions read. */
static l4j_status check_inputs(const l4j_device *device, const char *op, const l4j_lora *args, l4j_error *error) {
    L4J_TRY(check_scalars(device, op, args, error));
    L4J_TRY(l4j_check_tensor(device, op, "x", args->x, (l4j_expect){L4J_EXPECT_REAL, 0, 2, {L4J_ANY, L4J_ANY}, NULL},
                             error));
    L4J_TRY(l4j_check_pointer(op, "weights", args->weights, error));
    char name[32];
    bool adapters = false;
    for (int g = 0; g < args->projection_count; g++) {
        snprintf(name, sizeof name, "weights[%d]", g);
        L4J_TRY(l4j_check_weight(device, op, name, args->weights[g], L4J_ANY, args->x->shape[1], error));
        if (!args->biases) continue;
        int64_t N = args->weights[g]->rows;
        char weight_rows[48];
        snprintf(weight_rows, sizeof weight_rows, "weights[%d] has %lld rows", g, (long long)N);
        snprintf(name, sizeof name, "biases[%d]", g);
        L4J_TRY(l4j_check_tensor(device, op, name, &args->biases[g],
                                 (l4j_expect){L4J_EXPECT_STORED, L4J_EXPECT_OPTIONAL, 1, {N}, weight_rows}, error));
    }
    if (args->adapter_count == 0) return L4J_OK;
    L4J_TRY(l4j_check_pointer(op, "a", args->a, error));
    L4J_TRY(l4j_check_pointer(op, "b", args->b, error));
    L4J_TRY(l4j_check_live(device, op, "scaling", args->scaling, error));
    for (int i = 0; i < args->adapter_count * args->projection_count; i++) {
        L4J_TRY(check_adapter(device, op, args, i, i % args->projection_count, error));
        adapters |= args->a[i].data != NULL;
    }
    return adapters && args->dropout_p > 0.0f ? check_dropout(device, op, args, error) : L4J_OK;
}

/* One tensor of each projection, [M, columns(g)]. */
static l4j_status check_rows(const l4j_device *device, const char *op, const char *what, const l4j_lora *args, int g,
                             const l4j_tensor *tensors, int64_t columns, int32_t flags, l4j_error *error) {
    char name[24], why[64];
    L4J_TRY(l4j_check_pointer(op, what, tensors, error));
    snprintf(name, sizeof name, "%s[%d]", what, g);
    snprintf(why, sizeof why, "x has %lld rows", (long long)args->x->shape[0]);
    L4J_TRY(l4j_check_tensor(device, op, name, &tensors[g],
                             (l4j_expect){l4j_like(device, args->x), flags, 2, {args->x->shape[0], columns}, why},
                             error));
    if ((flags & L4J_EXPECT_OUTPUT) && tensors[g].data && tensors[g].data == args->x->data) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s and x have the same memory; an output may not overlap an input", op,
                        name);
    }
    return L4J_OK;
}

l4j_status l4j_validate_lora_forward(const l4j_device *device, const l4j_lora *args, l4j_error *error) {
    const char *op = "lora_forward";
    L4J_TRY(check_inputs(device, op, args, error));
    L4J_TRY(check_int8(op, args, true, error));
    for (int g = 0; g < args->projection_count; g++) {
        L4J_TRY(check_rows(device, op, "y", args, g, args->y, args->weights[g]->rows, L4J_EXPECT_OUTPUT, error));
        if (!widest_rank(args, g)) continue;
        L4J_TRY(check_rows(device, op, "s", args, g, args->s, widest_rank(args, g), L4J_EXPECT_OUTPUT, error));
    }
    return L4J_OK;
}

/* A gradient that is wanted: the shape of what it is the gradient of. */
static l4j_status check_gradient(const l4j_device *device, const char *op, const char *what, int i, int g,
                                 const l4j_tensor *gradients, const l4j_tensor *of, l4j_error *error) {
    char name[32], why[48];
    if (!gradients || !gradients[i].data) return L4J_OK;
    snprintf(name, sizeof name, "%s[%d]", what, i);
    if (!of[i].data) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s is given but projection %d has no adapter; expected data NULL", op,
                        name, g);
    }
    snprintf(why, sizeof why, "that is the shape of %s[%d]", what + 1, i);
    return l4j_check_tensor(device, op, name, &gradients[i],
                            (l4j_expect){L4J_EXPECT_SUM, L4J_EXPECT_OUTPUT, 2, {of[i].shape[0], of[i].shape[1]}, why},
                            error);
}

l4j_status l4j_validate_lora_backward(const l4j_device *device, const l4j_lora *args, l4j_error *error) {
    const char *op = "lora_backward";
    L4J_TRY(check_inputs(device, op, args, error));
    L4J_TRY(check_int8(op, args, false, error));
    if (args->dx) {
        l4j_expect like_x = {l4j_like(device, args->x),
                             L4J_EXPECT_OUTPUT,
                             2,
                             {args->x->shape[0], args->x->shape[1]},
                             "that is the shape of x"};
        L4J_TRY(l4j_check_tensor(device, op, "dx", args->dx, like_x, error));
        if (args->dx->data && args->dx->data == args->x->data) {
            return l4j_fail(error, L4J_EINVAL, "%s: dx and x have the same memory; an output may not overlap an input",
                            op);
        }
    }
    for (int g = 0; g < args->projection_count; g++) {
        L4J_TRY(check_rows(device, op, "dy", args, g, args->dy, args->weights[g]->rows, 0, error));
        if (args->dx && args->dx->data && args->dx->data == args->dy[g].data) {
            return l4j_fail(error, L4J_EINVAL,
                            "%s: dx and dy[%d] have the same memory; an output may not overlap an input", op, g);
        }
        int64_t rank = widest_rank(args, g);
        if (rank) L4J_TRY(check_rows(device, op, "s", args, g, args->s, rank, 0, error));
    }
    for (int i = 0; i < args->adapter_count * args->projection_count; i++) {
        L4J_TRY(check_gradient(device, op, "da", i, i % args->projection_count, args->da, args->a, error));
        L4J_TRY(check_gradient(device, op, "db", i, i % args->projection_count, args->db, args->b, error));
    }
    return L4J_OK;
}
