/* Rows of quantized weights: the definitions, compiled for the tier. */
#include "../internal.h"
#include "codes16.h"

#define QUANT_F16(h) _cvtsh_ss(h)
#include "quant/decode.h"

void L4J_NAME(decode_row)(const l4j_weight *w, int64_t n, int64_t k, int64_t count, float *out) {
    quant_decode(&w->quant, w->first_row + n, k, count, out);
}
