/* The parts of GGUF's blocks: one, the blocks of each row in order. */
#include "format.h"

#include "api/check.h"

/* The decoders, with codes and scales apart. */
#define C16_APART
#include "codes16.h"
#define QUANT_F16(h) l4j_f16_to_f32(h)
#include "gguf_k_blocks.h"

const l4j_gguf_format *l4j_gguf_format_of(int32_t scheme) {
#define FORMAT(name, decoder, values, bytes, group, sum, least, most) \
    {L4J_SCHEME_GGUF_##name, values, bytes, group, sum, least, most},
    static const l4j_gguf_format all[] = {L4J_GGUF_FORMATS(FORMAT)};
    size_t i = 0;
    while (all[i].scheme != scheme) i++;
    return &all[i];
}

void l4j_decode_halves(const l4j_quant *q, int64_t n, int64_t k, l4j_half half[2]) {
    const uint8_t *row = (const uint8_t *)q->values + n * q->row_bytes;
    switch (q->scheme) {
#define CASE(name, decoder, values, bytes, group, sum, least, most) \
    case L4J_SCHEME_GGUF_##name: l4j_##decoder(row + k / values * bytes, (int)(k % values / 32), half); break;
        L4J_GGUF_FORMATS(CASE)
    default: break;
    }
}

L4J_OPEN(gguf) {
    const l4j_gguf_format *f = l4j_gguf_format_of(parts->scheme);
    if (parts->cols % f->values != 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s: the weight has %lld columns, expected a multiple of %d", parts->op,
                        parts->name, (long long)parts->cols, f->values);
    }
    quant->row_bytes = parts->cols / f->values * f->bytes;
    return l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_U8), parts->rows, quant->row_bytes, error);
}
