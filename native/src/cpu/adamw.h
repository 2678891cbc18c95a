/* What the tiers of adamw_step share: the scalars of a group, in fp64, the walk over all blocks of all tensors, the maps of 8-bit
   state. */
#ifndef L4J_ADAMW_H
#define L4J_ADAMW_H

#include "internal.h"

#include <math.h>
#include <string.h>

enum { L4J_ADAMW_BLOCK = 4096 }; /* elements of a partial sum of the norm */

static inline int64_t l4j_elements(const l4j_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}
static inline int64_t l4j_adamw_blocks(const l4j_tensor *t) {
    return (l4j_elements(t) + L4J_ADAMW_BLOCK - 1) / L4J_ADAMW_BLOCK;
}

/* One block: elements [first, first + count) of tensor `tensor` of group `group`; `index` counts over everything. */
typedef struct {
    int64_t index, group, tensor, first, count;
} l4j_adamw_piece;

static inline int64_t l4j_adamw_all_blocks(const l4j_adamw *args) {
    int64_t blocks = 0;
    for (int64_t g = 0; g < args->group_count; g++) {
        for (int64_t t = 0; t < args->groups[g].tensor_count; t++)
            blocks += l4j_adamw_blocks(&args->groups[g].params[t]);
    }
    return blocks;
}

/* Calls visit() for the blocks [begin, end). */
static inline void l4j_adamw_each(const l4j_adamw *args, int64_t begin, int64_t end,
                                  void (*visit)(void *context, const l4j_adamw_piece *piece), void *context) {
    int64_t index = 0;
    for (int64_t g = 0; g < args->group_count && index < end; g++) {
        for (int64_t t = 0; t < args->groups[g].tensor_count && index < end; t++) {
            int64_t elements = l4j_elements(&args->groups[g].params[t]),
                    blocks = l4j_adamw_blocks(&args->groups[g].params[t]);
            for (int64_t b = l4j_max64(0, begin - index); b < blocks && index + b < end; b++) {
                int64_t first = b * L4J_ADAMW_BLOCK;
                visit(context,
                      &(l4j_adamw_piece){index + b, g, t, first, l4j_min64(L4J_ADAMW_BLOCK, elements - first)});
            }
            index += blocks;
        }
    }
}

/* The factors of the update, in fp64; a kernel rounds each of them to its own precision. */
typedef struct {
    double grad_scale; /* with the clip in it */
    double decay, one_minus_beta1, beta2, one_minus_beta2, sqrt_correction2, epsilon, negative_step;
    bool skip; /* the norm is not finite */
} l4j_adamw_factors;

static inline double l4j_power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent >>= 1, base *= base) {
        if (exponent & 1) result *= base;
    }
    return result;
}

/* Adds up the partial sums of group g, reports the norm, and derives the factors. */
static inline l4j_adamw_factors l4j_adamw_prepare(const l4j_adamw *args, int64_t g, const double *partial) {
    const l4j_adamw_group *group = &args->groups[g];
    const l4j_adamw_hyper *h = group->hyper;
    double total = 0;
    int64_t bad = -1;
    for (int64_t t = 0; t < group->tensor_count; t++) {
        double sum = 0;
        for (int64_t b = 0; b < l4j_adamw_blocks(&group->params[t]); b++) sum += *partial++;
        total += sum;
        if (bad < 0 && !isfinite(total)) bad = t;
    }
    double norm = h->grad_scale * sqrt(total), clip = 1;
    if (group->grad_norm) *group->grad_norm = norm;
    if (bad >= 0 && args->numeric && args->numeric->operation == L4J_OP_NONE) {
        *args->numeric = (l4j_numeric_status){
            .step = h->step, .operation = L4J_OP_ADAMW, .tensor = (int32_t)bad, .group = (int32_t)g};
    }
    if (h->max_grad_norm > 0) clip = fmin(1, h->max_grad_norm / (norm + 1e-6));
    return (l4j_adamw_factors){.grad_scale = h->grad_scale * clip,
                               .decay = 1 - h->learning_rate * h->weight_decay,
                               .one_minus_beta1 = 1 - h->beta1,
                               .beta2 = h->beta2,
                               .one_minus_beta2 = 1 - h->beta2,
                               .sqrt_correction2 = sqrt(1 - l4j_power(h->beta2, h->step)),
                               .epsilon = h->epsilon,
                               .negative_step = -(h->learning_rate / (1 - l4j_power(h->beta1, h->step))),
                               .skip = bad >= 0};
}

/* The values that the codes of 8-bit state stand for, ascending, and what lies between neighbours: fl((a + b) / 2). */
typedef struct {
    float value[256], middle[255];
} l4j_adamw_map;

static inline void l4j_adamw_fill_map(const uint32_t bits[256], l4j_adamw_map *map) {
    memcpy(map->value, bits, sizeof map->value);
    for (int i = 0; i < 255; i++) map->middle[i] = (map->value[i] + map->value[i + 1]) / 2;
}

/* Scratch: partial sums of all blocks, factors of all groups, maps of the two moments. */
typedef struct {
    const l4j_adamw *args;
    l4j_pool *pool;
    double *partial;
    l4j_adamw_factors *factors;
    l4j_adamw_map *maps;
} l4j_adamw_task;

static inline size_t l4j_adamw_layout(const l4j_adamw *args, void *workspace, l4j_adamw_task *task) {
    l4j_arena arena = {.base = workspace};
    task->args = args;
    task->partial = l4j_take(&arena, sizeof(double) * (size_t)l4j_adamw_all_blocks(args));
    task->factors = l4j_take(&arena, sizeof(l4j_adamw_factors) * (size_t)args->group_count);
    task->maps = l4j_take(&arena, sizeof(l4j_adamw_map) * 2);
    return arena.used;
}

/* The whole step: partial sums, factors, update; `square_sum` and `update` are the tier's. */
static inline void l4j_adamw_run(l4j_adamw_task *task, int thread, int threads,
                                 void (*square_sum)(void *context, const l4j_adamw_piece *piece),
                                 void (*update)(void *context, const l4j_adamw_piece *piece)) {
    int64_t begin, end, blocks = l4j_adamw_all_blocks(task->args);
    l4j_partition(blocks, 1, thread, threads, &begin, &end);
    l4j_adamw_each(task->args, begin, end, square_sum, task);
    l4j_pool_barrier(task->pool);
    if (thread == 0) {
        l4j_adamw_fill_map(l4j_bitsandbytes_dynamic_map(), &task->maps[0]);
        l4j_adamw_fill_map(l4j_bitsandbytes_unsigned_dynamic_map(), &task->maps[1]);
        const double *partial = task->partial;
        for (int64_t g = 0; g < task->args->group_count; g++) {
            task->factors[g] = l4j_adamw_prepare(task->args, g, partial);
            for (int64_t t = 0; t < task->args->groups[g].tensor_count; t++) {
                partial += l4j_adamw_blocks(&task->args->groups[g].params[t]);
            }
        }
    }
    l4j_pool_barrier(task->pool);
    l4j_adamw_each(task->args, begin, end, update, task);
}

#endif
