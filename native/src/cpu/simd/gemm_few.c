/*
 * Products of few rows with a weight in rows. Each value of the weight meets every row of A once, so that packing it would cost more
 * than the product. Instead the rows of A are the lanes of a vector, from one small transposed block, and the weight streams from
 * memory along its rows: C is computed transposed. Sixteen columns of each row of the weight are copied aside first: rows may be a
 * multiple of 4 KiB apart, and their lines would push one another out of L1 while they are read value by value.
 */
#include "gemm.h"

enum {
    FEW_TALL = 12,                       /* rows of the weight at once, with up to eight lanes */
    FEW_WIDE = GEMM_HALF ? 6 : FEW_TALL, /* with sixteen, which may take two registers */
    FEW_AHEAD = 256 /* columns ahead that are fetched: the rows are too many streams for the processor to follow */
};

/* Rows of B: the value (n, k) at row[n][k]. Where there are fewer than a tile has, the last one stands for the missing ones. */
typedef struct few_rows {
    const void *row[FEW_TALL];
    int64_t k;
    int64_t jump; /* elements from the end of a row to the begin of the row that takes its turn next; 0 = none does */
} few_rows;

static inline __attribute__((always_inline)) v16 few_load(const int32_t dtype, const void *row, int64_t k) {
    if (dtype == L4J_F32) return v16_load((const float *)row + k);
    const uint16_t *h = (const uint16_t *)row + k;
    return dtype == L4J_BF16 ? v16_load_bf16(h) : v16_load_f16(h);
}

/* Columns [k, k + 16) of the rows, as far as there are any, to block[row][16]. */
static inline __attribute__((always_inline)) void few_copy(float *block, const int rows, const int32_t dtype,
                                                           const few_rows *b, int64_t k) {
    if (k + L4J_PANEL > b->k) {
        for (int i = 0; i < rows; i++) {
            for (int64_t j = k; j < b->k; j++) block[i * L4J_PANEL + j - k] = gemm_read(b->row[i], dtype, j);
        }
        return;
    }
    int64_t next = k + FEW_AHEAD;
    if (next >= b->k) next = b->jump ? next + b->jump : k;
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
        _mm_prefetch((const char *)b->row[i] + next * (dtype == L4J_F32 ? 4 : 2), _MM_HINT_T1);
        v16_store(block + i * L4J_PANEL, few_load(dtype, b->row[i], k));
    }
}

/* tile[i][lane] = fma(B[i, k], x[k * lanes + lane], tile[i][lane]) for all k; with `half` eight lanes, otherwise sixteen. */
static inline __attribute__((always_inline)) void few_tile(float tile[FEW_TALL][L4J_PANEL], const int rows,
                                                           const int half, const int32_t dtype, const few_rows *b,
                                                           const float *x) {
    v16 acc[FEW_TALL];
    float block[2][FEW_TALL * L4J_PANEL]; /* one is read while the next is copied */
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) acc[i] = half ? gemm_half_load(tile[i]) : v16_load(tile[i]);
    few_copy(block[0], rows, dtype, b, 0);
    for (int64_t k = 0; k < b->k; k += L4J_PANEL) {
        const float *w = block[k / L4J_PANEL & 1];
        few_copy(block[(k / L4J_PANEL + 1) & 1], rows, dtype, b, k + L4J_PANEL);
        int64_t steps = l4j_min64(L4J_PANEL, b->k - k);
        for (int64_t j = 0; j < steps; j++, x += half ? L4J_PANEL / 2 : L4J_PANEL) {
            v16 xk = half ? gemm_half_load(x) : v16_load(x);
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++) acc[i] = gemm_half_fma(half, w[i * L4J_PANEL + j], xk, acc[i]);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
        if (half) {
            gemm_half_store(tile[i], acc[i]);
        } else {
            v16_store(tile[i], acc[i]);
        }
    }
}

typedef void (*few_instance)(float tile[FEW_TALL][L4J_PANEL], const few_rows *b, const float *x);

#define FEW_INSTANCE(name, rows, half, dtype)                                                    \
    static void few_##name(float tile[FEW_TALL][L4J_PANEL], const few_rows *b, const float *x) { \
        few_tile(tile, rows, half, dtype, b, x);                                                 \
    }
FEW_INSTANCE(f32, FEW_WIDE, 0, L4J_F32)
FEW_INSTANCE(bf16, FEW_WIDE, 0, L4J_BF16)
FEW_INSTANCE(f16, FEW_WIDE, 0, L4J_F16)
#if GEMM_HALF
FEW_INSTANCE(half_f32, FEW_TALL, 1, L4J_F32)
FEW_INSTANCE(half_bf16, FEW_TALL, 1, L4J_BF16)
FEW_INSTANCE(half_f16, FEW_TALL, 1, L4J_F16)
#endif

static few_instance few_choose(int32_t dtype, bool half) {
#if GEMM_HALF
    if (half) return dtype == L4J_F32 ? few_half_f32 : dtype == L4J_BF16 ? few_half_bf16 : few_half_f16;
#endif
    (void)half;
    return dtype == L4J_F32 ? few_f32 : dtype == L4J_BF16 ? few_bf16 : few_f16;
}

/* Continues the chains of a tile over one segment: rows [n, n + rows) of its transposed B, of `height` that the tile has. */
static void few_segment(float tile[FEW_TALL][L4J_PANEL], const gemm_segment *s, int64_t n, int rows, int height,
                        bool half, const float *x) {
    const l4j_weight *w = s->b.kind == GEMM_B_STRIDED ? NULL : s->b.weight;
    const char *data = w ? w->data : (const void *)s->b.data;
    int32_t dtype = w ? w->dtype : L4J_F32;
    int64_t stride = w ? w->row_stride : s->b.col_stride, size = dtype == L4J_F32 ? 4 : 2;
    few_rows b = {.k = s->k, .jump = w && n + 2 * height <= w->rows ? height * stride - s->k : 0};
    for (int i = 0; i < height; i++) b.row[i] = data + (n + (i < rows ? i : rows - 1)) * stride * size;
    few_choose(dtype, half)(tile, &b, x);
}

/* Rows of A as lanes: steps [begin, end) of one segment, from its packed panels. */
static void few_pack(float *out, int lanes, const gemm_product *p, const gemm_segment *s, int64_t begin, int64_t end) {
    int64_t padded = gemm_panels(p->m, p->height) * p->height;
    for (int64_t k = begin; k < end; k++) {
        int64_t block = k / gemm_block(s->k) * gemm_block(s->k), steps = l4j_min64(gemm_block(s->k), s->k - block);
        const float *from = s->packed + block * padded + (k - block) * p->height;
        for (int64_t m = 0; m < lanes; m++) {
            out[k * lanes + m] = m < p->m ? from[m / p->height * p->height * steps + m % p->height] : 0;
        }
    }
}

void gemm_run_few(gemm_team *team, const gemm_product *p) {
    bool half = GEMM_HALF && p->m <= L4J_PANEL / 2;
    int lanes = half ? L4J_PANEL / 2 : L4J_PANEL, height = half ? FEW_TALL : FEW_WIDE;
    int64_t begin, end;
    float *x = team->few;
    for (int s = 0; s < p->segments; s++) {
        l4j_partition(p->segment[s].k, 1, team->thread, team->threads, &begin, &end);
        few_pack(x, lanes, p, &p->segment[s], begin, end);
        x += p->segment[s].k * lanes;
    }
    l4j_pool_barrier(team->pool);
    l4j_partition(p->n, height, team->thread, team->threads, &begin, &end);
    for (int64_t n = begin; n < end; n += height) {
        int rows = (int)l4j_min64(height, end - n);
        float tile[FEW_TALL][L4J_PANEL] = {{0}};
        for (int64_t m = 0; m < p->m && p->start; m++) {
            for (int i = 0; i < rows; i++) tile[i][m] = p->start[m * p->start_stride + n + i];
        }
        x = team->few;
        for (int s = 0; s < p->segments; s++) {
            few_segment(tile, &p->segment[s], n, rows, height, half, x);
            x += p->segment[s].k * lanes;
        }
        for (int64_t m = 0; m < p->m; m++) {
            for (int i = 0; i < rows; i++) p->c[m * p->ldc + n + i] = tile[i][m];
        }
    }
    /* The lanes may be packed anew only when all threads are done with them. */
    l4j_pool_barrier(team->pool);
}
