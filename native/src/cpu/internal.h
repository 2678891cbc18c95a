/*
 * What the CPU library is made of: the handles behind lora4j.h, the table of operations that each ISA tier fills in, and the
 * threads that run them. Everything here is hidden; names start with l4j_ so that a static link stays clean.
 *
 * An operation is written once per tier:
 *     size_t     l4j_<tier>_<op>_workspace(int threads, const args *);
 *     l4j_status l4j_<tier>_<op>(l4j_queue *, const args *, void *workspace, l4j_error *);
 * Arguments were validated by l4j_validate_<op>() in src/api, the workspace is large enough and 64-byte aligned, the queue is held.
 */
#ifndef L4J_INTERNAL_H
#define L4J_INTERNAL_H

#include "quant/format.h"

#include <lora4j/lora4j.h>

#ifdef __cplusplus /* the CUDA library */
#include <atomic>
using std::atomic_int;
extern "C" {
#else
#include <stdatomic.h>
#include <stdbool.h>
#endif

/* Every operation: name, argument struct. The one list behind prototypes, tables and the C boundary. */
#define L4J_OPERATIONS(OP)                                     \
    OP(lora_forward, l4j_lora)                                 \
    OP(lora_backward, l4j_lora)                                \
    OP(dequantize_forward, l4j_dequantize)                     \
    OP(quantize_forward, l4j_quantize)                         \
    OP(rms_norm_forward, l4j_rms_norm)                         \
    OP(rms_norm_backward, l4j_rms_norm)                        \
    OP(rope_forward, l4j_rope)                                 \
    OP(rope_backward, l4j_rope)                                \
    OP(attention_forward, l4j_attention)                       \
    OP(attention_backward, l4j_attention)                      \
    OP(swiglu_forward, l4j_swiglu)                             \
    OP(swiglu_backward, l4j_swiglu)                            \
    OP(embedding_forward, l4j_embedding)                       \
    OP(embedding_backward, l4j_embedding)                      \
    OP(linear_cross_entropy_forward, l4j_linear_cross_entropy) \
    OP(adamw_step, l4j_adamw)                                  \
    OP(axpby_forward, l4j_axpby)                               \
    OP(sample_forward, l4j_sample)

/* Every tier compiled in, in ascending order: name, ISA code. L4J_REF_ONLY leaves out all but the portable ones. */
#if defined(__x86_64__) && !defined(L4J_REF_ONLY)
#define L4J_HAS_X86_TIERS 1
#endif
#if defined(L4J_HAS_X86_TIERS)
#define L4J_TIERS(TIER)          \
    TIER(ref, L4J_ISA_REF)       \
    TIER(avx2, L4J_ISA_AVX2)     \
    TIER(avx512, L4J_ISA_AVX512) \
    TIER(ref64, L4J_ISA_REF64)
#else
#define L4J_TIERS(TIER)    \
    TIER(ref, L4J_ISA_REF) \
    TIER(ref64, L4J_ISA_REF64)
#endif

typedef struct l4j_kernels {
    int32_t isa;
    const char *name;
#define L4J_MEMBER(op, args_t)                                 \
    size_t (*op##_workspace)(int threads, const args_t *args); \
    l4j_status (*op)(l4j_queue * queue, const args_t *args, void *workspace, l4j_error *error);
    L4J_OPERATIONS(L4J_MEMBER)
#undef L4J_MEMBER
    void (*decode_row)(const l4j_weight *weight, int64_t n, int64_t k, int64_t count, float *out);
} l4j_kernels;

/* Pastes the tier's name: L4J_NAME(rope_forward) is l4j_avx2_rope_forward where L4J_TIER is avx2. */
#define L4J_PASTE_(a, b, c) a##b##_##c
#define L4J_PASTE(a, b, c) L4J_PASTE_(a, b, c)
#define L4J_NAME(op) L4J_PASTE(l4j_, L4J_TIER, op)

struct l4j_backend; /* src/cuda/backend.h */

struct l4j_device {
    const l4j_kernels *kernels;
    const struct l4j_backend *gpu; /* NULL: the CPU */
    int32_t id, multiprocessors;   /* of a GPU */
    int32_t isa;
    int32_t best_isa;
    int32_t bf16_isa;    /* of the products of L4J_COMPUTE_BF16 */
    int32_t int8_isa;    /* of those of L4J_COMPUTE_INT8 */
    atomic_int children; /* queues, weights and blocks of memory alive */
};

/* Memory for free(): big blocks on huge pages. NULL where there is none. */
enum { L4J_ALIGNMENT = 64, L4J_HUGE_PAGE = 2 << 20, L4J_HUGE_BLOCK = 4 << 20 };
void *l4j_cpu_allocate(size_t bytes);

typedef struct l4j_pool l4j_pool;

struct l4j_queue {
    l4j_device *device;
    l4j_pool *pool; /* NULL on a GPU */
    void *stream;   /* of a GPU: cudaStream_t */
    void *fault;    /* of a GPU: the first value that a kernel refused */
    bool owns_stream;
    int threads;
    int64_t alone_below; /* multiply-adds under which the calling thread does it all */
    atomic_int turn;     /* odd while an operation runs: one at a time */
};

/* Takes the queue for operation `op`, which another thread must not be using. */
l4j_status l4j_queue_hold(l4j_queue *queue, const char *op, l4j_error *error);
void l4j_queue_release(l4j_queue *queue);

/* Where a weight's values lie. */
typedef enum {
    L4J_LAYOUT_ROWS,   /* value (n, k) at data[n * row_stride + k] */
    L4J_LAYOUT_PANELS, /* value (n, k) at data[((n / 16) * cols + k) * 16 + n % 16]; lanes past the last row are zero */
    L4J_LAYOUT_CODES,  /* quantized: decode_row gives rows */
    L4J_LAYOUT_TILES,  /* bf16, for L4J_COMPUTE_BF16: at l4j_tile_index(false, cols, n, k) of bf16.h */
    L4J_LAYOUT_QUAD_TILES, /* the same with true: for VDPBF16PS */
} l4j_layout;

enum { L4J_PANEL = 16 }; /* rows of a panel, and lanes of a reduction */

/* Elements of a tensor or weight at most, counted as if no stride were 0: sizes of workspaces cannot overflow. */
#define L4J_MAX_ELEMENTS ((int64_t)1 << 40)

/* linear_cross_entropy sums dx over the vocabulary in blocks: one chain would lose the many small probabilities to rounding. */
enum { L4J_LCE_BLOCK = 1024 };

struct l4j_weight {
    l4j_device *device;
    int32_t scheme, mode, dtype;
    l4j_layout layout;
    int64_t rows, cols; /* N, K */
    int64_t row_stride; /* L4J_LAYOUT_ROWS */
    const void *data;   /* L4J_LAYOUT_ROWS and L4J_LAYOUT_PANELS */
    l4j_quant quant;    /* L4J_LAYOUT_CODES: row n of the weight is row first_row + n of this */
    int64_t first_row;
    void *owned; /* what destroy frees */
    int64_t bytes_held;
};

/* Columns [k, k + count) of row n of a weight in L4J_LAYOUT_CODES as fp32; k is a multiple of 16. Every tier gives the same bits. */
#define L4J_DECODE_ROW(tier) \
    void l4j_##tier##_decode_row(const l4j_weight *weight, int64_t n, int64_t k, int64_t count, float *out);
#define L4J_DECODE_ROW_OF(tier, isa) L4J_DECODE_ROW(tier)
L4J_TIERS(L4J_DECODE_ROW_OF)

/* ---- threads: static partition, every thread runs the same task ---- */
typedef void (*l4j_task)(void *context, int thread, int threads);
l4j_pool *l4j_pool_create(int threads, int spin_us, l4j_error *error);
void l4j_pool_destroy(l4j_pool *pool);
/* Whether the pool's threads stayed behind in the process that forked this one: nothing can run on it any more. */
bool l4j_pool_lost(const l4j_pool *pool);
/* Runs task(context, 0..threads-1) and returns when all are done. Thread 0 is the caller. */
void l4j_pool_run(l4j_pool *pool, l4j_task task, void *context);
/* Inside a task: waits until every thread of the pool is here. */
void l4j_pool_barrier(l4j_pool *pool);
/* Takes units [*begin, *end) of `total`, at most `most`, smaller ones towards the end: so that a thread which the system holds up does
   not hold up the others. Threads count their rounds from 1 within a run; false when all units of the round are taken. */
bool l4j_pool_claim(l4j_pool *pool, unsigned round, int64_t total, int64_t most, int64_t *begin, int64_t *end);
/* Runs task(context, 0, 1) on the caller; barriers inside pass at once. */
void l4j_pool_run_alone(l4j_pool *pool, l4j_task task, void *context);
static inline void l4j_run(l4j_queue *queue, l4j_task task, void *context) { l4j_pool_run(queue->pool, task, context); }
/* The same for `work` multiply-adds: a little work is done sooner by one thread than handed out. Results do not depend on it. */
static inline void l4j_run_work(l4j_queue *queue, double work, l4j_task task, void *context) {
    if (work < (double)queue->alone_below) {
        l4j_pool_run_alone(queue->pool, task, context);
    } else {
        l4j_pool_run(queue->pool, task, context);
    }
}
/* For tests, which want small operands spread over threads: 0 never runs alone. */
void l4j_queue_run_alone_below(l4j_queue *queue, int64_t work);
enum { L4J_ELEMENT_WORK = 8 }; /* multiply-adds that one element of an elementwise operation counts as */
/* Part `thread` of [0, n) in pieces whose inner boundaries are multiples of `grain`. */
static inline void l4j_partition(int64_t n, int64_t grain, int thread, int threads, int64_t *begin, int64_t *end) {
    int64_t units = (n + grain - 1) / grain;
    int64_t b = units * thread / threads * grain, e = units * (thread + 1) / threads * grain;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

/* ---- errors: fills `error` (may be NULL) and returns `status` ---- */
l4j_status l4j_fail(l4j_error *error, l4j_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- workspace: hands out 64-byte aligned pieces; with base NULL it only adds up ---- */
typedef struct l4j_arena {
    char *base;
    size_t used;
} l4j_arena;
static inline void *l4j_take(l4j_arena *arena, size_t bytes) {
    void *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + 63) & ~(size_t)63;
    return piece;
}

/* ---- stored floats ---- */
static inline float l4j_bf16_to_f32(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } v;
    v.u = (uint32_t)h << 16;
    return v.f;
}
float l4j_f16_to_f32(uint16_t h); /* exact, any CPU: src/cpu/convert.c */
uint16_t l4j_f32_to_f16(float x); /* to nearest, ties to even */

static inline int64_t l4j_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t l4j_max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- Philox4x32-10 (Salmon et al. 2011) ---- */
static inline void l4j_philox4x32(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)p1;
        c[3] = (uint32_t)p0;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

#ifdef __cplusplus
}
#endif

#endif
