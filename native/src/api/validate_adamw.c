#include "check.h"

#include <stdio.h>

/* Tensor t of a list of a group: of this dtype and the shape of `like`, contiguous. Without a shape any will do. */
static l4j_status check_member(const l4j_device *device, int64_t g, const char *list, int64_t t,
                               const l4j_tensor *tensor, int32_t dtype, const l4j_tensor *like, l4j_error *error) {
    char name[64];
    snprintf(name, sizeof name, "groups[%lld].%s[%lld]", (long long)g, list, (long long)t);
    if (like->ndim < 1 || like->ndim > 4) {
        return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].params[%lld].ndim is %d, expected 1 to 4",
                        (long long)g, (long long)t, like->ndim);
    }
    l4j_expect expect = {.dtype = dtype, .flags = L4J_EXPECT_OUTPUT, .ndim = like->ndim};
    for (int i = 0; i < like->ndim; i++) expect.shape[i] = tensor == like ? L4J_ANY : like->shape[i];
    L4J_TRY(l4j_check_tensor(device, "adamw_step", name, tensor, expect, error));
    int64_t stride = 1;
    for (int i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] > 1 && tensor->stride[i] != stride) {
            return l4j_fail(error, L4J_EINVAL,
                            "adamw_step: %s has stride %lld in dimension %d, expected %lld: contiguous", name,
                            (long long)tensor->stride[i], i, (long long)stride);
        }
        stride *= tensor->shape[i];
    }
    return L4J_OK;
}

/* The state of tensor t: both moments F32, or both U8 with a scale for each block. */
static l4j_status check_state(const l4j_device *device, int64_t g, const l4j_adamw_group *group, int64_t t,
                              l4j_error *error) {
    const struct {
        const char *name, *scales_name;
        const l4j_tensor *tensor, *scales;
    } moments[] = {{"exp_avgs", "exp_avg_scales", &group->exp_avgs[t], group->exp_avg_scales},
                   {"exp_avg_sqs", "exp_avg_sq_scales", &group->exp_avg_sqs[t], group->exp_avg_sq_scales}};
    bool coded = group->exp_avgs[t].dtype == L4J_U8;
    const l4j_tensor *param = &group->params[t];
    int64_t elements = 1;
    for (int i = 0; i < param->ndim; i++) elements *= param->shape[i];
    l4j_tensor scales = {.ndim = 1, .shape = {(elements + L4J_ADAMW_STATE_BLOCK - 1) / L4J_ADAMW_STATE_BLOCK}};
    for (int i = 0; i < 2; i++) {
        L4J_TRY(check_member(device, g, moments[i].name, t, moments[i].tensor, coded ? L4J_U8 : L4J_EXPECT_SUM, param,
                             error));
        if (!coded) {
            if (!moments[i].scales || !moments[i].scales[t].data) continue;
            return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].%s[%lld] has scales, but %s[%lld] is not U8",
                            (long long)g, moments[i].scales_name, (long long)t, moments[i].name, (long long)t);
        }
        if (!moments[i].scales) {
            return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].%s is NULL, but %s[%lld] is U8", (long long)g,
                            moments[i].scales_name, moments[i].name, (long long)t);
        }
        L4J_TRY(
            check_member(device, g, moments[i].scales_name, t, &moments[i].scales[t], L4J_EXPECT_SUM, &scales, error));
    }
    return L4J_OK;
}

static l4j_status check_group(const l4j_device *device, int64_t g, const l4j_adamw_group *group, l4j_error *error) {
    if (group->tensor_count < 0) {
        return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].tensor_count is %lld, expected 0 or more",
                        (long long)g, (long long)group->tensor_count);
    }
    const struct {
        const char *name;
        const l4j_tensor *tensors;
    } lists[] = {{"params", group->params},
                 {"grads", group->grads},
                 {"exp_avgs", group->exp_avgs},
                 {"exp_avg_sqs", group->exp_avg_sqs}};
    for (size_t i = 0; i < 4 && group->tensor_count > 0; i++) {
        if (!lists[i].tensors) {
            return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].%s is NULL", (long long)g, lists[i].name);
        }
    }
    char name[64];
    snprintf(name, sizeof name, "groups[%lld].hyper", (long long)g);
    L4J_TRY(l4j_check_live(device, "adamw_step", name, group->hyper, error));
    snprintf(name, sizeof name, "groups[%lld].grad_norm", (long long)g);
    L4J_TRY(l4j_check_live_or_null(device, "adamw_step", name, group->grad_norm, error));
    for (int64_t t = 0; t < group->tensor_count; t++) {
        for (size_t i = 0; i < 2; i++) {
            L4J_TRY(check_member(device, g, lists[i].name, t, &lists[i].tensors[t], L4J_EXPECT_SUM, &group->params[t],
                                 error));
        }
        L4J_TRY(check_state(device, g, group, t, error));
    }
    return L4J_OK;
}

l4j_status l4j_validate_adamw_step(const l4j_device *device, const l4j_adamw *args, l4j_error *error) {
    const char *op = "adamw_step";
    L4J_TRY(l4j_check_struct(op, args->struct_size, sizeof *args, args->reserved, 4, error));
    if (args->flags & ~(uint32_t)L4J_ADAMW_ZERO_GRADS) {
        return l4j_fail(error, L4J_EINVAL, "%s: flags are 0x%x, expected L4J_ADAMW_ZERO_GRADS or 0", op, args->flags);
    }
    if (args->group_count < 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: group_count is %lld, expected 0 or more", op,
                        (long long)args->group_count);
    }
    if (args->group_count > 0) L4J_TRY(l4j_check_pointer(op, "groups", args->groups, error));
    L4J_TRY(l4j_check_live_or_null(device, op, "numeric", args->numeric, error));
    for (int64_t g = 0; g < args->group_count; g++) L4J_TRY(check_group(device, g, &args->groups[g], error));
    return L4J_OK;
}
