/* The product with the base weight of L4J_COMPUTE_INT8, straight from the contract. */
#include "../int8.h"
#include "lora.h"

void lora_int8_row(const l4j_lora *args, int64_t m, l4j_int8_unit *units) {
    for (int64_t k = 0; k < args->x->shape[1]; k += L4J_INT8_UNIT) {
        float x[L4J_INT8_UNIT];
        for (int64_t i = 0; i < L4J_INT8_UNIT; i++) x[i] = (float)*real_at2(args->x, m, k + i);
        l4j_int8_quantize(x, &units[k / L4J_INT8_UNIT]);
    }
}

real lora_int8_base(const l4j_weight *w, int64_t n, const l4j_int8_unit *units, real acc) {
    const l4j_gguf_format *format = l4j_gguf_format_of(w->scheme);
    for (int64_t k = 0; k < w->cols; k += L4J_INT8_UNIT) {
        const l4j_int8_unit *x = &units[k / L4J_INT8_UNIT];
        l4j_half half[2];
        int32_t product[2] = {0, 0};
        l4j_decode_halves(&w->quant, w->first_row + n, k, half);
        for (int i = 0; i < L4J_INT8_UNIT; i++) product[i / 16] += x->q[i] * half[i / 16].code[i % 16];
        int groups = L4J_INT8_UNIT / format->group;
        for (int g = 0; g < groups; g++) {
            int32_t whole = groups == 1 ? product[0] + product[1] : product[g];
            int32_t sum = groups == 1 ? x->sum[0] + x->sum[1] : x->sum[g];
            acc = real_fma((real)x->d * (real)half[g].d, (real)whole, acc);
            if (format->sum) acc = real_fma((real)x->d * (real)sum, (real)half[g].m, acc);
        }
    }
    return acc;
}
