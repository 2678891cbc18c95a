#include "check.h"
#include "cpu/dropout.h"

#include <string.h>

l4j_status l4j_philox_mask16(uint64_t seed, int64_t step, uint32_t token_index, int32_t module_id, int32_t adapter_id,
                             int64_t columns, uint16_t *out, l4j_error *error) {
    if (columns < 0) return l4j_fail(error, L4J_EINVAL, "philox_mask16: columns is %lld", (long long)columns);
    if (module_id < 0 || module_id > 65535 || adapter_id < 0 || adapter_id > 65535) {
        return l4j_fail(error, L4J_EINVAL, "philox_mask16: module_id is %d, adapter_id is %d, expected 0 to 65535",
                        module_id, adapter_id);
    }
    if (columns > 0) L4J_TRY(l4j_check_pointer("philox_mask16", "out", out, error));
    l4j_dropout stream = {
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .stream = (uint32_t)module_id | (uint32_t)adapter_id << 16,
        .step = (uint32_t)step,
    };
    uint16_t bits[L4J_DROPOUT_BLOCK];
    for (int64_t k = 0; k < columns; k += L4J_DROPOUT_BLOCK) {
        l4j_dropout_bits(&stream, token_index, k / L4J_DROPOUT_BLOCK, bits);
        memcpy(out + k, bits, (size_t)l4j_min64(L4J_DROPOUT_BLOCK, columns - k) * sizeof *out);
    }
    return L4J_OK;
}
