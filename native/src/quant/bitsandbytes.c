/* The parts of bitsandbytes' formats: QuantState.as_dict of its functional.py, nn/modules.py. */
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

/* create_dynamic_map(signed = True, 7, 8) as torch computes it in fp32, as bits: the code book of double quantization. */
static const uint32_t dynamic[256] = {
    0xBF7E3333, 0xBF7A999A, 0xBF770000, 0xBF736666, 0xBF6FCCCD, 0xBF6C3333, 0xBF68999A, 0xBF650000, 0xBF616666,
    0xBF5DCCCD, 0xBF5A3333, 0xBF56999A, 0xBF530000, 0xBF4F6666, 0xBF4BCCCD, 0xBF483333, 0xBF44999A, 0xBF410000,
    0xBF3D6666, 0xBF39CCCD, 0xBF363334, 0xBF32999A, 0xBF2F0000, 0xBF2B6666, 0xBF27CCCD, 0xBF243334, 0xBF20999A,
    0xBF1D0000, 0xBF196666, 0xBF15CCCD, 0xBF123334, 0xBF0E999A, 0xBF0B0000, 0xBF076666, 0xBF03CCCC, 0xBF003333,
    0xBEF93332, 0xBEF20000, 0xBEEACCCC, 0xBEE3999A, 0xBEDC6666, 0xBED53333, 0xBECE0000, 0xBEC6CCCC, 0xBEBF999A,
    0xBEB86666, 0xBEB13333, 0xBEAA0000, 0xBEA2CCCC, 0xBE9B999A, 0xBE946666, 0xBE8D3334, 0xBE860000, 0xBE7D9999,
    0xBE6F3333, 0xBE60CCCD, 0xBE526666, 0xBE440000, 0xBE35999A, 0xBE273333, 0xBE18CCCD, 0xBE0A6666, 0xBDF80000,
    0xBDDB3334, 0xBDC9EB85, 0xBDC428F7, 0xBDBE6667, 0xBDB8A3D7, 0xBDB2E148, 0xBDAD1EB8, 0xBDA75C2A, 0xBDA1999A,
    0xBD9BD70A, 0xBD96147B, 0xBD9051EB, 0xBD8A8F5D, 0xBD84CCCD, 0xBD7E147B, 0xBD728F5D, 0xBD670A3D, 0xBD5B851F,
    0xBD500000, 0xBD447AE1, 0xBD38F5C3, 0xBD2D70A3, 0xBD21EB85, 0xBD166667, 0xBD0AE148, 0xBCFEB852, 0xBCE7AE15,
    0xBCD0A3D7, 0xBCB9999A, 0xBCA28F5D, 0xBC8B851F, 0xBC68F5C3, 0xBC3AE148, 0xBC1F3B64, 0xBC160418, 0xBC0CCCCD,
    0xBC039581, 0xBBF4BC6A, 0xBBE24DD3, 0xBBCFDF3B, 0xBBBD70A4, 0xBBAB020D, 0xBB989374, 0xBB8624DD, 0xBB676C8A,
    0xBB428F5C, 0xBB1DB22D, 0xBAF1A9FC, 0xBAA7EF9D, 0xBA7765FF, 0xBA59E83E, 0xBA3C6A80, 0xBA1EECC1, 0xBA016F01,
    0xB9C7E283, 0xB98CE705, 0xB923D70B, 0xB8BA1F4B, 0xB88AEFB3, 0xB8378034, 0xB7B24206, 0xB70205FF, 0xB65A1A94,
    0xB513A3B7, 0x00000000, 0x3513A3B7, 0x365A1A94, 0x370205FF, 0x37B24206, 0x38378034, 0x388AEFB3, 0x38BA1F4B,
    0x3923D70B, 0x398CE705, 0x39C7E283, 0x3A016F01, 0x3A1EECC1, 0x3A3C6A80, 0x3A59E83E, 0x3A7765FF, 0x3AA7EF9D,
    0x3AF1A9FC, 0x3B1DB22D, 0x3B428F5C, 0x3B676C8A, 0x3B8624DD, 0x3B989374, 0x3BAB020D, 0x3BBD70A4, 0x3BCFDF3B,
    0x3BE24DD3, 0x3BF4BC6A, 0x3C039581, 0x3C0CCCCD, 0x3C160418, 0x3C1F3B64, 0x3C3AE148, 0x3C68F5C3, 0x3C8B851F,
    0x3CA28F5D, 0x3CB9999A, 0x3CD0A3D7, 0x3CE7AE15, 0x3CFEB852, 0x3D0AE148, 0x3D166667, 0x3D21EB85, 0x3D2D70A3,
    0x3D38F5C3, 0x3D447AE1, 0x3D500000, 0x3D5B851F, 0x3D670A3D, 0x3D728F5D, 0x3D7E147B, 0x3D84CCCD, 0x3D8A8F5D,
    0x3D9051EB, 0x3D96147B, 0x3D9BD70A, 0x3DA1999A, 0x3DA75C2A, 0x3DAD1EB8, 0x3DB2E148, 0x3DB8A3D7, 0x3DBE6667,
    0x3DC428F7, 0x3DC9EB85, 0x3DDB3334, 0x3DF80000, 0x3E0A6666, 0x3E18CCCD, 0x3E273333, 0x3E35999A, 0x3E440000,
    0x3E526666, 0x3E60CCCD, 0x3E6F3333, 0x3E7D9999, 0x3E860000, 0x3E8D3334, 0x3E946666, 0x3E9B999A, 0x3EA2CCCC,
    0x3EAA0000, 0x3EB13333, 0x3EB86666, 0x3EBF999A, 0x3EC6CCCC, 0x3ECE0000, 0x3ED53333, 0x3EDC6666, 0x3EE3999A,
    0x3EEACCCC, 0x3EF20000, 0x3EF93332, 0x3F003333, 0x3F03CCCC, 0x3F076666, 0x3F0B0000, 0x3F0E999A, 0x3F123334,
    0x3F15CCCD, 0x3F196666, 0x3F1D0000, 0x3F20999A, 0x3F243334, 0x3F27CCCD, 0x3F2B6666, 0x3F2F0000, 0x3F32999A,
    0x3F363334, 0x3F39CCCD, 0x3F3D6666, 0x3F410000, 0x3F44999A, 0x3F483333, 0x3F4BCCCD, 0x3F4F6666, 0x3F530000,
    0x3F56999A, 0x3F5A3333, 0x3F5DCCCD, 0x3F616666, 0x3F650000, 0x3F68999A, 0x3F6C3333, 0x3F6FCCCD, 0x3F736666,
    0x3F770000, 0x3F7A999A, 0x3F7E3333, 0x3F800000,
};
const uint32_t *l4j_bitsandbytes_dynamic_map(void) { return dynamic; }

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
