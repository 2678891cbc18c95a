/* The parts of bitsandbytes' formats: QuantState.as_dict of its functional.py, nn/modules.py. */
#include "dynamic_map.h"
#include "format.h"

#include "api/check.h"

#include <math.h>
#include <string.h>

/* create_normal_map and the fp4 table of functional.py, as fp32. (Code 8 of FP4, a negative zero by its bits, is +0 in the table.) */
static const float nf4[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};
static const float fp4[16] = {0.0f,       0.0625f / 12, 8.0f / 12,  12.0f / 12,    4.0f / 12,  6.0f / 12,
                              2.0f / 12,  3.0f / 12,    0.0f,       -0.0625f / 12, -8.0f / 12, -12.0f / 12,
                              -4.0f / 12, -6.0f / 12,   -2.0f / 12, -3.0f / 12};

const float *l4j_bitsandbytes_map(int32_t scheme) { return scheme == L4J_SCHEME_NF4 ? nf4 : fp4; }

static const uint32_t dynamic[256] = {L4J_DYNAMIC_MAP}, unsigned_dynamic[256] = {L4J_UNSIGNED_DYNAMIC_MAP};
const uint32_t *l4j_bitsandbytes_dynamic_map(void) { return dynamic; }
const uint32_t *l4j_bitsandbytes_unsigned_dynamic_map(void) { return unsigned_dynamic; }

static l4j_status check_finite(const l4j_parts *parts, int32_t role, int64_t count, l4j_error *error) {
    if (parts->out) return L4J_OK;
    const float *v = parts->role[role]->data;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(v[i])) continue;
        return l4j_fail(error, L4J_ENUMERIC, "%s: %s: %s[%lld] is %g, expected a finite value", parts->op, parts->name,
                        l4j_role_name(role), (long long)i, v[i]);
    }
    return L4J_OK;
}

L4J_OPEN(bitsandbytes_4bit) {
    int64_t values = parts->rows * parts->cols;
    L4J_TRY(l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_U8), (values + 1) / 2, 0, error));
    L4J_TRY(l4j_part_size(parts, L4J_ROLE_BLOCK_SIZE, 32, 4096, &quant->block, error));
    memcpy(quant->map, l4j_bitsandbytes_map(parts->scheme), sizeof quant->map);
    if (parts->role[L4J_ROLE_QUANT_MAP]) {
        L4J_TRY(l4j_part(parts, L4J_ROLE_QUANT_MAP, L4J_DTYPE(L4J_F32), 16, 0, error));
        L4J_TRY(check_finite(parts, L4J_ROLE_QUANT_MAP, 16, error));
        if (!parts->out) memcpy(quant->map, parts->role[L4J_ROLE_QUANT_MAP]->data, sizeof quant->map);
    }
    int64_t blocks = (values + quant->block - 1) / quant->block;
    static const int32_t nested[] = {L4J_ROLE_NESTED_SCALES, L4J_ROLE_NESTED_QUANT_MAP, L4J_ROLE_NESTED_OFFSET,
                                     L4J_ROLE_NESTED_BLOCK_SIZE};
    int given = 0;
    for (int i = 0; i < 4; i++) given += parts->role[nested[i]] != NULL;
    bool codes = parts->role[L4J_ROLE_SCALES] && parts->role[L4J_ROLE_SCALES]->dtype == L4J_U8;
    if (!given && !codes) return l4j_part(parts, L4J_ROLE_SCALES, L4J_DTYPE(L4J_F32), blocks, 0, error);

    L4J_TRY(l4j_part(parts, L4J_ROLE_SCALES, L4J_DTYPE(L4J_U8), blocks, 0, error));
    L4J_TRY(l4j_part_size(parts, L4J_ROLE_NESTED_BLOCK_SIZE, 32, 4096, &quant->nested_block, error));
    int64_t nested_blocks = (blocks + quant->nested_block - 1) / quant->nested_block;
    L4J_TRY(l4j_part(parts, L4J_ROLE_NESTED_SCALES, L4J_DTYPE(L4J_F32), nested_blocks, 0, error));
    L4J_TRY(l4j_part(parts, L4J_ROLE_NESTED_QUANT_MAP, L4J_DTYPE(L4J_F32), 256, 0, error));
    L4J_TRY(check_finite(parts, L4J_ROLE_NESTED_QUANT_MAP, 256, error));
    L4J_TRY(l4j_part(parts, L4J_ROLE_NESTED_OFFSET, L4J_DTYPE(L4J_F32), 1, 0, error));
    quant->nested_scales = parts->role[L4J_ROLE_NESTED_SCALES]->data;
    quant->nested_map = parts->role[L4J_ROLE_NESTED_QUANT_MAP]->data;
    if (!parts->out) quant->nested_offset = *(const float *)parts->role[L4J_ROLE_NESTED_OFFSET]->data;
    return L4J_OK;
}

L4J_OPEN(llm_int8) {
    quant->block = parts->cols;
    quant->scale_stride = 1;
    L4J_TRY(l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_I8), parts->rows, parts->cols, error));
    return l4j_part(parts, L4J_ROLE_SCALES, L4J_DTYPE(L4J_F32), parts->rows, 0, error);
}
