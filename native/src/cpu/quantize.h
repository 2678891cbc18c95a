/*
 * quantize_forward: the operation around the quantizers, included once for each tier. Blocks are shared out over the threads; only the
 * offset of double quantization needs all of them at once.
 */
#ifndef L4J_QUANTIZE_OPERATION_H
#define L4J_QUANTIZE_OPERATION_H

#include "quant/quantize_k.h"

#include "internal.h"

typedef struct {
    l4j_queue *queue;
    const l4j_quantize *args;
    l4j_quant quant;
    float *absmax;         /* double quantization: [blocks] */
    _Atomic int64_t first; /* lowest index n * K + k of what cannot be stored; INT64_MAX where there is none */
} quantize_task;

/* The memory of the part of this role; NULL where it is not given. */
static inline void *quantize_part(const l4j_quantize *args, int32_t role) {
    for (int32_t i = 0; i < args->part_count; i++) {
        if (args->part_roles[i] == role) return args->part_values[i].data;
    }
    return NULL;
}

static inline float quantize_read(const l4j_tensor *x, int64_t n, int64_t k) {
    int64_t at = n * x->stride[0] + k * x->stride[1];
    switch (x->dtype) {
    case L4J_F64: return (float)((const double *)x->data)[at];
    case L4J_F32: return ((const float *)x->data)[at];
    case L4J_BF16: return l4j_bf16_to_f32(((const uint16_t *)x->data)[at]);
    default: return QUANT_F16(((const uint16_t *)x->data)[at]);
    }
}

static inline void quantize_refuse(quantize_task *task, int64_t index) {
    int64_t old = atomic_load(&task->first);
    while (index < old && !atomic_compare_exchange_weak(&task->first, &old, index)) {
    }
}

/* Values [first, first + count) of the flattened x; refused where one is not finite, whose bits then do not matter. */
static inline void quantize_load(quantize_task *task, int64_t first, int64_t count, float *restrict out) {
    const l4j_tensor *x = task->args->x;
    int64_t K = x->shape[1];
    for (int64_t done = 0; done < count;) {
        int64_t n = (first + done) / K, k = (first + done) % K, here = l4j_min64(count - done, K - k);
        if (x->dtype == L4J_F32 && x->stride[1] == 1) {
            memcpy(out + done, (const float *)x->data + n * x->stride[0] + k, sizeof(float) * (size_t)here);
        } else {
            for (int64_t i = 0; i < here; i++) out[done + i] = quantize_read(x, n, k + i);
        }
        done += here;
    }
    uint32_t found = 0;
    for (int64_t i = 0; i < count; i++) found |= !(fabsf(out[i]) <= FLT_MAX);
    for (int64_t i = 0; i < count && found; i++) {
        if (fabsf(out[i]) <= FLT_MAX) continue;
        quantize_refuse(task, first + i);
        out[i] = 0;
    }
}

/* ---- bitsandbytes ---- */

static inline void quantize_4bit_task(void *context, int thread, int threads) {
    quantize_task *task = context;
    const l4j_quantize *args = task->args;
    const l4j_quant *q = &task->quant;
    int64_t values = q->rows * q->cols, blocks = (values + q->block - 1) / q->block, begin, end;
    quant_bounds bounds = quant_bounds_of(q->scheme);
    float *absmax = q->nested_scales ? task->absmax : (float *)q->scales;
    uint8_t *codes = (uint8_t *)q->values;
    l4j_partition(blocks, 1, thread, threads, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        float x[4096];
        int64_t first = b * q->block, count = l4j_min64(q->block, values - first);
        quantize_load(task, first, count, x);
        absmax[b] = quantize_bitsandbytes_4bit(x, count, count == q->block, &bounds, codes + first / 2);
    }
    if (!q->nested_scales) return;
    l4j_pool_barrier(task->queue->pool);
    float *offset = quantize_part(args, L4J_ROLE_NESTED_OFFSET);
    if (thread == 0 && !(args->flags & L4J_QUANTIZE_GIVEN_OFFSET)) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; b++) sum += absmax[b];
        *offset = (float)(sum / (double)blocks);
    }
    l4j_pool_barrier(task->queue->pool);
    l4j_partition((blocks + q->nested_block - 1) / q->nested_block, 1, thread, threads, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        int64_t first = b * q->nested_block, count = l4j_min64(q->nested_block, blocks - first);
        ((float *)q->nested_scales)[b] = quantize_nested(absmax + first, count, *offset, (uint8_t *)q->scales + first);
    }
}

static inline void quantize_int8_task(void *context, int thread, int threads) {
    quantize_task *task = context;
    const l4j_quant *q = &task->quant;
    int64_t begin, end;
    l4j_partition(q->rows, 1, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n++) {
        float x[1024], absmax = 0;
        for (int pass = 0; pass < 2; pass++) { /* the row's absmax, then its codes */
            for (int64_t k = 0; k < q->cols; k += 1024) {
                int64_t count = l4j_min64(1024, q->cols - k);
                quantize_load(task, n * q->cols + k, count, x);
                if (pass == 0) {
                    absmax = fmaxf(absmax, quant_absolute_max(x, count));
                } else {
                    quantize_llm_int8(x, count, absmax, (int8_t *)q->values + n * q->cols + k);
                }
            }
        }
        ((float *)q->scales)[n] = absmax;
    }
}

/* ---- GGUF ---- */

static inline void quantize_gguf_task(void *context, int thread, int threads) {
    quantize_task *task = context;
    const l4j_quant *q = &task->quant;
    static const struct {
        int32_t scheme;
        int32_t values, bytes;
        bool (*quantize)(const float *x, uint8_t *out);
    } kinds[] = {{L4J_SCHEME_GGUF_Q4_0, 32, 18, quantize_q4_0},   {L4J_SCHEME_GGUF_Q4_1, 32, 20, quantize_q4_1},
                 {L4J_SCHEME_GGUF_Q5_0, 32, 22, quantize_q5_0},   {L4J_SCHEME_GGUF_Q8_0, 32, 34, quantize_q8_0},
                 {L4J_SCHEME_GGUF_Q4_K, 256, 144, quantize_q4_k}, {L4J_SCHEME_GGUF_Q6_K, 256, 210, quantize_q6_k}};
    int kind = 0;
    while (kinds[kind].scheme != q->scheme) kind++;
    int64_t size = kinds[kind].values, begin, end;
    l4j_partition(q->rows * q->cols / size, 1, thread, threads, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        float x[256];
        quantize_load(task, b * size, size, x);
        if (!kinds[kind].quantize(x, (uint8_t *)q->values + b * kinds[kind].bytes)) quantize_refuse(task, b * size);
    }
}

/* ---- the operation ---- */

static inline int64_t quantize_absmax_count(const l4j_quantize *args, const l4j_quant *q) {
    if (!quantize_part(args, L4J_ROLE_NESTED_SCALES)) return 0;
    return (q->rows * q->cols + q->block - 1) / q->block;
}

static inline l4j_quant quantize_open(const l4j_quantize *args) {
    l4j_quant quant;
    l4j_part_list list = {args->part_count, args->part_roles, args->part_values};
    l4j_quant_open("quantize_forward", args->scheme, args->x->shape[0], args->x->shape[1], list, true, &quant, NULL);
    return quant; /* validated before */
}

static inline size_t quantize_workspace(const l4j_quantize *args) {
    l4j_quant quant = quantize_open(args);
    return sizeof(float) * (size_t)quantize_absmax_count(args, &quant);
}

static inline l4j_status quantize_run(l4j_queue *queue, const l4j_quantize *args, void *workspace, l4j_error *error) {
    quantize_task task = {
        .queue = queue, .args = args, .quant = quantize_open(args), .absmax = workspace, .first = INT64_MAX};
    bool four = args->scheme == L4J_SCHEME_NF4 || args->scheme == L4J_SCHEME_FP4;
    if (four) {
        void *map = quantize_part(args, L4J_ROLE_QUANT_MAP), *nested = quantize_part(args, L4J_ROLE_NESTED_QUANT_MAP);
        if (map) memcpy(map, l4j_bitsandbytes_map(args->scheme), 16 * sizeof(float));
        if (nested) memcpy(nested, l4j_bitsandbytes_dynamic_map(), 256 * sizeof(float));
    }
    l4j_run(queue,
            four                                  ? quantize_4bit_task
            : args->scheme == L4J_SCHEME_LLM_INT8 ? quantize_int8_task
                                                  : quantize_gguf_task,
            &task);
    int64_t first = atomic_load(&task.first), K = args->x->shape[1];
    if (first == INT64_MAX) return L4J_OK;
    if (fabsf(quantize_read(args->x, first / K, first % K)) <= FLT_MAX) {
        return l4j_fail(
            error, L4J_ENUMERIC,
            "quantize_forward: the block at [%lld, %lld] needs a scale beyond fp16; expected smaller values",
            (long long)(first / K), (long long)(first % K));
    }
    return l4j_fail(error, L4J_ENUMERIC, "quantize_forward: value [%lld, %lld] is NaN or Inf; expected finite values",
                    (long long)(first / K), (long long)(first % K));
}

#endif
