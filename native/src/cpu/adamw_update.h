/*
 * The update of a piece of a tensor, with 8-bit block-wise state (Dettmers et al. 2022) decoded before it and encoded after it. Included
 * by each tier, which defines ADAMW_REAL first. Nothing is fused here and comparisons choose the codes, so all tiers find the same.
 */
#ifndef L4J_ADAMW_UPDATE_H
#define L4J_ADAMW_UPDATE_H

#include "adamw.h"

#include <string.h>

typedef ADAMW_REAL adamw_real;

/* The tier's arithmetic on `count` elements. */
typedef void (*adamw_arithmetic)(const l4j_adamw_factors *f, int64_t count, const adamw_real *grad, adamw_real *param,
                                 adamw_real *exp_avg, adamw_real *exp_avg_sq);

static inline void adamw_decode(const l4j_adamw_map *map, const uint8_t *codes, adamw_real scale, int64_t count,
                                adamw_real *out) {
    for (int64_t i = 0; i < count; i++) out[i] = map->value[codes[i]] * scale;
}

/* Returns the scale. The nearest value has the number of middles that are below x; a NaN is above none. */
static inline adamw_real adamw_encode(const l4j_adamw_map *map, const adamw_real *x, int64_t count, uint8_t *codes) {
    adamw_real scale = 0;
    for (int64_t i = 0; i < count; i++) {
        adamw_real magnitude = x[i] < 0 ? -x[i] : x[i];
        scale = magnitude > scale ? magnitude : scale;
    }
    adamw_real divisor = scale > 0 ? scale : 1;
    for (int64_t i = 0; i < count; i++) {
        adamw_real part = x[i] / divisor;
        int below = 0;
        for (int step = 128; step >= 1; step /= 2) below += part > map->middle[below + step - 1] ? step : 0;
        codes[i] = (uint8_t)below;
    }
    return scale;
}

static inline void adamw_update_piece(const l4j_adamw_task *task, const l4j_adamw_piece *piece,
                                      adamw_arithmetic arithmetic) {
    enum { BLOCK = L4J_ADAMW_STATE_BLOCK };
    const l4j_adamw_group *group = &task->args->groups[piece->group];
    const l4j_adamw_factors *f = &task->factors[piece->group];
    int64_t t = piece->tensor;
    bool coded = group->exp_avgs[t].dtype == L4J_U8, zero = task->args->flags & L4J_ADAMW_ZERO_GRADS;
    for (int64_t i = piece->first, end = piece->first + piece->count; i < end; i += BLOCK) {
        int64_t count = l4j_min64(BLOCK, end - i);
        adamw_real *grad = (adamw_real *)group->grads[t].data + i, *param = (adamw_real *)group->params[t].data + i;
        if (f->skip) {
            /* everything but the gradients stays as it is */
        } else if (coded) {
            uint8_t *m_codes = (uint8_t *)group->exp_avgs[t].data + i,
                    *v_codes = (uint8_t *)group->exp_avg_sqs[t].data + i;
            adamw_real *m_scale = (adamw_real *)group->exp_avg_scales[t].data + i / BLOCK;
            adamw_real *v_scale = (adamw_real *)group->exp_avg_sq_scales[t].data + i / BLOCK;
            adamw_real m[BLOCK], v[BLOCK];
            adamw_decode(&task->maps[0], m_codes, *m_scale, count, m);
            adamw_decode(&task->maps[1], v_codes, *v_scale, count, v);
            arithmetic(f, count, grad, param, m, v);
            *m_scale = adamw_encode(&task->maps[0], m, count, m_codes);
            *v_scale = adamw_encode(&task->maps[1], v, count, v_codes);
        } else {
            arithmetic(f, count, grad, param, (adamw_real *)group->exp_avgs[t].data + i,
                       (adamw_real *)group->exp_avg_sqs[t].data + i);
        }
        if (zero) memset(grad, 0, sizeof *grad * (size_t)count);
    }
}

#endif
