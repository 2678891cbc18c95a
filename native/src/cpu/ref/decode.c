/* Rows of quantized weights, straight from the definitions. */
#include "quant/codes16.h"
#include "real.h"

#define QUANT_F16(h) l4j_f16_to_f32(h)
#include "quant/decode.h"

void L4J_NAME(decode_row)(const l4j_weight *w, int64_t n, int64_t k, int64_t count, float *out) {
    quant_decode(&w->quant, w->first_row + n, k, count, out);
}
