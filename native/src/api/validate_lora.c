/* lora_forward and lora_backward: every argument, before anything is written. */
#include "check.h"
#include "cpu/dropout.h"

#include <stdio.h>

enum { MAX_PROJECTIONS = 16 };

static l4j_status check_unsupported(const char *op, const l4j_lora *args, l4j_error *error) {
    if (args->adapter_count > 1) {
        return l4j_fail(error, L4J_ENOTSUP,
                        "%s: adapter_count is %d; several adapters are not supported yet, expected 0 or 1", op,
                        args->adapter_count);
    }
    if (args->segment_capacity || args->segment_count || args->segment_offsets || args->segment_adapters) {
        return l4j_fail(error, L4J_ENOTSUP,
                        "%s: row segments are not supported yet; expected segment_capacity 0 and NULL", op);
    }
    if (args->magnitudes)
        return l4j_fail(error, L4J_ENOTSUP, "%s: magnitudes (DoRA) are not supported yet; expected NULL", op);
    if (args->compute != L4J_COMPUTE_F32) {
        return l4j_fail(error, L4J_ENOTSUP, "%s: compute is %d, expected L4J_COMPUTE_F32", op, args->compute);
    }
    return L4J_OK;
}

static l4j_status check_scalars(const char *op, const l4j_lora *args, l4j_error *error) {
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 8, error));
    if (args->reserved0) return l4j_fail(error, L4J_EINVAL, "%s: reserved0 is not zero", op);
    if (args->flags & ~(uint32_t)(L4J_LORA_ACCUMULATE_GRADS | L4J_LORA_ACCUMULATE_DX)) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: flags are 0x%x, expected L4J_LORA_ACCUMULATE_GRADS and L4J_LORA_ACCUMULATE_DX", op,
                        args->flags);
    }
    if (args->projection_count < 1 || args->projection_count > MAX_PROJECTIONS) {
        return l4j_fail(error, L4J_EINVAL, "%s: projection_count is %d, expected 1 to %d", op, args->projection_count,
                        MAX_PROJECTIONS);
    }
    if (args->adapter_count < 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: adapter_count is %d, expected 0 or 1", op, args->adapter_count);
    }
    L4J_TRY(check_unsupported(op, args, error));
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

static l4j_status check_dropout(const char *op, const l4j_lora *args, l4j_error *error) {
    L4J_TRY(l4j_check_pointer(op, "dropout_seed", args->dropout_seed, error));
    L4J_TRY(l4j_check_pointer(op, "dropout_step", args->dropout_step, error));
    if (args->x->shape[0] > 0) L4J_TRY(l4j_check_pointer(op, "token_index", args->token_index, error));
    L4J_TRY(l4j_check_pointer(op, "module_id", args->module_id, error));
    return l4j_check_pointer(op, "adapter_id", args->adapter_id, error);
}

/* x, the weights, biases and adapters: what both directions read. */
static l4j_status check_inputs(const l4j_device *device, const char *op, const l4j_lora *args, l4j_error *error) {
    L4J_TRY(check_scalars(op, args, error));
    L4J_TRY(l4j_check_tensor(device, op, "x", args->x, (l4j_expect){L4J_EXPECT_REAL, 0, 2, {L4J_ANY, L4J_ANY}, NULL},
                             error));
    L4J_TRY(l4j_check_pointer(op, "weights", args->weights, error));
    int64_t K = args->x->shape[1];
    char name[24], x_columns[48];
    bool adapters = false;
    snprintf(x_columns, sizeof x_columns, "x has %lld columns", (long long)K);
    for (int g = 0; g < args->projection_count; g++) {
        snprintf(name, sizeof name, "weights[%d]", g);
        L4J_TRY(l4j_check_weight(device, op, name, args->weights[g], L4J_ANY, K, error));
        int64_t N = args->weights[g]->rows;
        char weight_rows[48];
        snprintf(weight_rows, sizeof weight_rows, "weights[%d] has %lld rows", g, (long long)N);
        if (args->biases) {
            snprintf(name, sizeof name, "biases[%d]", g);
            L4J_TRY(l4j_check_tensor(device, op, name, &args->biases[g],
                                     (l4j_expect){L4J_EXPECT_STORED, L4J_EXPECT_OPTIONAL, 1, {N}, weight_rows}, error));
        }
        if (args->adapter_count == 0) continue;
        if (g == 0) {
            L4J_TRY(l4j_check_pointer(op, "a", args->a, error));
            L4J_TRY(l4j_check_pointer(op, "b", args->b, error));
            L4J_TRY(l4j_check_pointer(op, "scaling", args->scaling, error));
        }
        if (!args->a[g].data) {
            if (!args->b[g].data) continue;
            return l4j_fail(error, L4J_EINVAL, "%s: b[%d] is given but a[%d].data is NULL; expected both or neither",
                            op, g, g);
        }
        adapters = true;
        snprintf(name, sizeof name, "a[%d]", g);
        L4J_TRY(l4j_check_tensor(device, op, name, &args->a[g],
                                 (l4j_expect){L4J_EXPECT_REAL, 0, 2, {L4J_ANY, K}, x_columns}, error));
        if (args->a[g].shape[0] < 1)
            return l4j_fail(error, L4J_EINVAL, "%s: a[%d] has rank 0, expected at least 1", op, g);
        snprintf(name, sizeof name, "b[%d]", g);
        char shape[112];
        snprintf(shape, sizeof shape, "%s and a[%d] has rank %lld", weight_rows, g, (long long)args->a[g].shape[0]);
        L4J_TRY(l4j_check_tensor(device, op, name, &args->b[g],
                                 (l4j_expect){L4J_EXPECT_REAL, 0, 2, {N, args->a[g].shape[0]}, shape}, error));
    }
    return adapters && args->dropout_p > 0.0f ? check_dropout(op, args, error) : L4J_OK;
}

/* One tensor of each projection, [M, columns(g)]. */
static l4j_status check_rows(const l4j_device *device, const char *op, const char *what, const l4j_lora *args, int g,
                             const l4j_tensor *tensors, int64_t columns, int32_t flags, l4j_error *error) {
    char name[24], why[64];
    L4J_TRY(l4j_check_pointer(op, what, tensors, error));
    snprintf(name, sizeof name, "%s[%d]", what, g);
    snprintf(why, sizeof why, "x has %lld rows", (long long)args->x->shape[0]);
    L4J_TRY(l4j_check_tensor(device, op, name, &tensors[g],
                             (l4j_expect){L4J_EXPECT_REAL, flags, 2, {args->x->shape[0], columns}, why}, error));
    if ((flags & L4J_EXPECT_OUTPUT) && tensors[g].data && tensors[g].data == args->x->data) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s and x have the same memory; an output may not overlap an input", op,
                        name);
    }
    return L4J_OK;
}

static bool has_adapter(const l4j_lora *args, int g) { return args->adapter_count > 0 && args->a[g].data; }

l4j_status l4j_validate_lora_forward(const l4j_device *device, const l4j_lora *args, l4j_error *error) {
    const char *op = "lora_forward";
    L4J_TRY(check_inputs(device, op, args, error));
    for (int g = 0; g < args->projection_count; g++) {
        L4J_TRY(check_rows(device, op, "y", args, g, args->y, args->weights[g]->rows, L4J_EXPECT_OUTPUT, error));
        if (!has_adapter(args, g)) continue;
        L4J_TRY(check_rows(device, op, "s", args, g, args->s, args->a[g].shape[0], L4J_EXPECT_OUTPUT, error));
    }
    return L4J_OK;
}

/* A gradient that is wanted: the shape of what it is the gradient of. */
static l4j_status check_gradient(const l4j_device *device, const char *op, const char *what, int g,
                                 const l4j_tensor *gradients, const l4j_tensor *of, bool adapter, l4j_error *error) {
    char name[24], why[48];
    if (!gradients || !gradients[g].data) return L4J_OK;
    snprintf(name, sizeof name, "%s[%d]", what, g);
    if (!adapter) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s is given but projection %d has no adapter; expected data NULL", op,
                        name, g);
    }
    snprintf(why, sizeof why, "that is the shape of %s[%d]", what + 1, g);
    return l4j_check_tensor(device, op, name, &gradients[g],
                            (l4j_expect){L4J_EXPECT_REAL, L4J_EXPECT_OUTPUT, 2, {of[g].shape[0], of[g].shape[1]}, why},
                            error);
}

l4j_status l4j_validate_lora_backward(const l4j_device *device, const l4j_lora *args, l4j_error *error) {
    const char *op = "lora_backward";
    L4J_TRY(check_inputs(device, op, args, error));
    if (args->dx) {
        l4j_expect like_x = {
            L4J_EXPECT_REAL, L4J_EXPECT_OUTPUT, 2, {args->x->shape[0], args->x->shape[1]}, "that is the shape of x"};
        L4J_TRY(l4j_check_tensor(device, op, "dx", args->dx, like_x, error));
        if (args->dx->data && args->dx->data == args->x->data) {
            return l4j_fail(error, L4J_EINVAL, "%s: dx and x have the same memory; an output may not overlap an input",
                            op);
        }
    }
    for (int g = 0; g < args->projection_count; g++) {
        bool adapter = has_adapter(args, g);
        L4J_TRY(check_rows(device, op, "dy", args, g, args->dy, args->weights[g]->rows, 0, error));
        if (args->dx && args->dx->data && args->dx->data == args->dy[g].data) {
            return l4j_fail(error, L4J_EINVAL,
                            "%s: dx and dy[%d] have the same memory; an output may not overlap an input", op, g);
        }
        if (adapter) L4J_TRY(check_rows(device, op, "s", args, g, args->s, args->a[g].shape[0], 0, error));
        L4J_TRY(check_gradient(device, op, "da", g, args->adapter_count ? args->da : NULL, args->a, adapter, error));
        L4J_TRY(check_gradient(device, op, "db", g, args->adapter_count ? args->db : NULL, args->b, adapter, error));
    }
    return L4J_OK;
}
