/* The parts of GGUF's blocks: one, the blocks of each row in order. */
#include "format.h"

#include "api/check.h"

L4J_OPEN(gguf) {
    static const struct {
        int32_t scheme;
        int64_t values, bytes;
    } blocks[] = {
#define BLOCK(name, decoder, values, bytes) {L4J_SCHEME_GGUF_##name, values, bytes},
        L4J_GGUF_FORMATS(BLOCK)};
    size_t i = 0;
    while (blocks[i].scheme != parts->scheme) i++;
    if (parts->cols % blocks[i].values != 0) {
        return l4j_fail(error, L4J_EINVAL, "%s: %s: the weight has %lld columns, expected a multiple of %lld",
                        parts->op, parts->name, (long long)parts->cols, (long long)blocks[i].values);
    }
    quant->row_bytes = parts->cols / blocks[i].values * blocks[i].bytes;
    return l4j_part(parts, L4J_ROLE_VALUES, L4J_DTYPE(L4J_U8), parts->rows, quant->row_bytes, error);
}
