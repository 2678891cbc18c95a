/* The dropout of l4j_lora: which elements are kept, and the factor that makes up for the others. See l4j_lora in lora4j.h. */
#ifndef L4J_DROPOUT_H
#define L4J_DROPOUT_H

#include "internal.h"
#include <math.h>

enum { L4J_DROPOUT_BLOCK = 32 }; /* columns that four Philox blocks decide */

/* One adapter's stream of random bits. An element is kept when its bits are ≥ threshold; threshold 0 means no dropout. */
typedef struct l4j_dropout {
    uint32_t threshold;
    uint32_t key[2];
    uint32_t stream; /* module_id | adapter_id << 16 */
    uint32_t step;
    const uint32_t *token_index;
} l4j_dropout;

static inline uint32_t l4j_dropout_threshold(float p) { return (uint32_t)llround(65536.0 * (double)p); }

/* c of the contract. */
static inline float l4j_lora_factor(float scaling, float p) {
    return (float)((double)scaling / (1.0 - (double)l4j_dropout_threshold(p) / 65536.0));
}

static inline l4j_dropout l4j_lora_dropout(const l4j_lora *args, int adapter, int projection) {
    l4j_dropout d = {l4j_dropout_threshold(args->dropout_p), {0, 0}, 0, 0, NULL};
    if (d.threshold) {
        d.key[0] = (uint32_t)*args->dropout_seed;
        d.key[1] = (uint32_t)(*args->dropout_seed >> 32);
        d.stream = (uint32_t)args->module_id[projection] | (uint32_t)args->adapter_id[adapter] << 16;
        d.step = (uint32_t)*args->dropout_step;
        d.token_index = args->token_index;
    }
    return d;
}

/* Bits of columns 32·block to 32·block + 31 of one token. */
static inline void l4j_dropout_bits(const l4j_dropout *d, uint32_t token, int64_t block,
                                    uint16_t bits[L4J_DROPOUT_BLOCK]) {
    for (int t = 0; t < 4; t++) {
        uint32_t c[4] = {token, (uint32_t)(4 * block + t), d->stream, d->step};
        l4j_philox4x32(c, d->key[0], d->key[1]);
        for (int j = 0; j < 4; j++) {
            bits[8 * j + 2 * t] = (uint16_t)c[j];
            bits[8 * j + 2 * t + 1] = (uint16_t)(c[j] >> 16);
        }
    }
}

#endif
