/* The parts of integers with a scale for each group of columns: plain int8, GPTQ, AWQ; and of FP8. */
#include "format.h"

#include "api/check.h"

/* How many rows of scales there are: the first dimension of the part. */
static int64_t scale_rows(const l4j_parts *parts) {
    const l4j_tensor *t = parts->role[L4J_ROLE_SCALES];
    return t && t->ndim >= 1 && t->shape[0] > 0 ? t->shape[0] : 1;
}

static l4j_status check_groups(const l4j_parts *parts, int64_t groups, l4j_error *error) {
    if (groups >= 1 && groups <= parts->cols && parts->cols % groups == 0) return L4J_OK;
    return l4j_fail(error, L4J_EINVAL, "%s: %s: SCALES have %lld groups, expected a divisor of the %lld columns",
                    parts->op, parts->name, (long long)groups, (long long)parts->cols);
}

L4J_OPEN(int8) {
    const l4j_tensor *scales = parts->role[L4J_ROLE_SCALES];
    int64_t groups = scales && scales->ndim == 2 ? scales->shape[1] : 1;
    L4J_TRY(check_groups(parts, groups, error));
    quant->block = parts->cols / groups;
    quant->scale_stride = groups;
    L4J_TRY(l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_I8), parts->rows, parts->cols, error));
    return l4j_part(parts, L4J_ROLE_SCALES, L4J_FLOATS, parts->rows, groups, error);
}

static l4j_status check_words(const l4j_parts *parts, const char *what, int64_t size, l4j_error *error) {
    if (size % 8 == 0) return L4J_OK;
    return l4j_fail(error, L4J_EINVAL, "%s: %s: the weight has %lld %s, expected a multiple of 8", parts->op,
                    parts->name, (long long)size, what);
}

/* The scale's row of each column; noted only where it is not k / block. */
static l4j_status open_group_index(const l4j_parts *parts, l4j_quant *quant, int64_t groups, l4j_error *error) {
    L4J_TRY(l4j_part(parts, L4J_ROLE_GROUP_INDEX, L4J_DTYPE(L4J_I32), parts->cols, 0, error));
    const int32_t *index = parts->role[L4J_ROLE_GROUP_INDEX]->data;
    bool in_order = parts->cols % groups == 0;
    for (int64_t k = 0; k < parts->cols; k++) {
        if (index[k] < 0 || index[k] >= groups) {
            return l4j_fail(error, L4J_EINVAL,
                            "%s: %s: GROUP_INDEX[%lld] is %d, expected 0 to %lld, the rows of SCALES", parts->op,
                            parts->name, (long long)k, index[k], (long long)groups - 1);
        }
        in_order = in_order && index[k] == k / (parts->cols / groups);
    }
    if (in_order) {
        quant->block = parts->cols / groups;
    } else {
        quant->group_index = index;
        quant->block = 1;
    }
    return L4J_OK;
}

L4J_OPEN(gptq) {
    int64_t groups = scale_rows(parts);
    L4J_TRY(check_words(parts, "columns", parts->cols, error));
    if (parts->role[L4J_ROLE_GROUP_INDEX]) {
        L4J_TRY(open_group_index(parts, quant, groups, error));
    } else {
        L4J_TRY(check_groups(parts, groups, error));
        quant->block = parts->cols / groups;
    }
    quant->scale_stride = parts->rows;
    quant->zero_stride = (parts->rows + 7) / 8;
    L4J_TRY(l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_I32), parts->cols / 8, parts->rows, error));
    L4J_TRY(l4j_part(parts, L4J_ROLE_ZEROS, L4J_DTYPE(L4J_I32), groups, quant->zero_stride, error));
    quant->zeros = parts->role[L4J_ROLE_ZEROS]->data;
    return l4j_part(parts, L4J_ROLE_SCALES, L4J_FLOATS, groups, parts->rows, error);
}

L4J_OPEN(awq) {
    int64_t groups = scale_rows(parts);
    L4J_TRY(check_words(parts, "rows", parts->rows, error));
    L4J_TRY(check_groups(parts, groups, error));
    quant->block = parts->cols / groups;
    quant->scale_stride = parts->rows;
    quant->zero_stride = parts->rows / 8;
    L4J_TRY(l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_I32), parts->cols, parts->rows / 8, error));
    L4J_TRY(l4j_part(parts, L4J_ROLE_ZEROS, L4J_DTYPE(L4J_I32), groups, parts->rows / 8, error));
    quant->zeros = parts->role[L4J_ROLE_ZEROS]->data;
    return l4j_part(parts, L4J_ROLE_SCALES, L4J_FLOATS, groups, parts->rows, error);
}

enum { FP8_BLOCK = 128 };

L4J_OPEN(fp8) {
    const l4j_tensor *scales = parts->role[L4J_ROLE_SCALES];
    int64_t down = (parts->rows + FP8_BLOCK - 1) / FP8_BLOCK, across = (parts->cols + FP8_BLOCK - 1) / FP8_BLOCK;
    L4J_TRY(l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_U8), parts->rows, parts->cols, error));
    if (!scales || scales->ndim < 1 || (scales->ndim == 2 && scales->shape[0] == down && scales->shape[1] == across)) {
        quant->block = quant->block_rows = FP8_BLOCK;
        quant->scale_stride = across;
        return l4j_part(parts, L4J_ROLE_SCALES, L4J_FLOATS, down, across, error);
    }
    bool one = scales->shape[0] == 1 && (scales->ndim == 1 || scales->shape[1] == 1);
    quant->block = parts->cols;
    quant->block_rows = one ? parts->rows : 1;
    quant->scale_stride = 1;
    return l4j_part(parts, L4J_ROLE_SCALES, L4J_FLOATS, one ? 1 : parts->rows, 0, error);
}
