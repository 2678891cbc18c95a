/*
 * What both directions of attention share: a block of query rows of one key/value head, and the three kinds of product over it,
 * all of them through gemm_tile. A query sees a range of the keys whose ends grow with the queries, so that a tile of rows has a
 * common range, which runs through the tile, and ragged ends, which run row by row: the chains never touch a key that their query
 * does not see.
 */
#ifndef L4J_ATTENTION_H
#define L4J_ATTENTION_H

#include "gemm.h"
#include "rows.h"
#include "vexp.h"

#include <string.h>

enum {
    ATTENTION_STEPS = 64, /* keys, or queries, whose rows are packed at a time: they stay in L1 */
    ATTENTION_ROWS = 48   /* rows that a block has even where keys are many, so that packing them pays */
};

/* One head of a tensor: element (row, d) at data[row * row_stride + d * col_stride]. */
typedef struct {
    const float *data;
    int64_t row_stride, col_stride;
} attention_head;

static inline attention_head attention_head_of(const l4j_tensor *t, int64_t row, int64_t head) {
    return (attention_head){(const float *)t->data + row * t->stride[0] + head * t->stride[1], t->stride[0],
                            t->stride[2]};
}

/* A row of D floats: where it lies, or gathered into `buffer`. */
static inline const float *attention_row(const attention_head *x, int64_t D, float *buffer) {
    if (x->col_stride == 1) return x->data;
    for (int64_t d = 0; d < D; d++) buffer[d] = x->data[d * x->col_stride];
    return buffer;
}

/* Rows of one (sequence, key/value head); row r is query (first + r) / group. */
typedef struct {
    int64_t first, rows, group;
    int64_t keys;    /* of the sequence */
    int64_t visible; /* causal: where the keys end that query 0 of the sequence sees */
    bool causal;
    int64_t window;    /* most keys that a row sees */
    int64_t D, stride; /* head dimension; floats between rows of scores */
    int64_t origin;    /* the key whose scores are column 0, a multiple of 16 */
} attention_block;

/* Row r sees the keys [start, limit). */
static inline int64_t attention_limit(const attention_block *b, int64_t r) {
    return b->causal ? b->visible + (b->first + r) / b->group : b->keys;
}
static inline int64_t attention_start(const attention_block *b, int64_t r) {
    return l4j_max64(0, attention_limit(b, r) - b->window);
}
/* The rows [first, last) see key j; group is 1. */
static inline int64_t attention_first_row(const attention_block *b, int64_t j) {
    return b->causal ? l4j_min64(b->rows, l4j_max64(0, j + 1 - b->visible - b->first)) : 0;
}
static inline int64_t attention_last_row(const attention_block *b, int64_t j) {
    return b->causal ? l4j_min64(b->rows, l4j_max64(0, j + 1 - b->visible - b->first + b->window)) : b->rows;
}

/* Steps of a block of `count` keys, or rows, from its first one on; empty: at its end. */
typedef struct {
    int64_t begin, end;
} attention_range;

static inline attention_range attention_clip(int64_t begin, int64_t end, int64_t count) {
    begin = l4j_max64(0, begin);
    end = l4j_min64(count, end);
    return begin < end ? (attention_range){begin, end} : (attention_range){count, count};
}
/* Which of the keys [j, j + count) the rows first to last all see. */
static inline attention_range attention_keys(const attention_block *b, int64_t first, int64_t last, int64_t j,
                                             int64_t count) {
    return attention_clip(attention_start(b, last) - j, attention_limit(b, first) - j, count);
}
/* Which of the rows [r, r + count) see all of the keys first to last; group is 1. */
static inline attention_range attention_rows(const attention_block *b, int64_t first, int64_t last, int64_t r,
                                             int64_t count) {
    return attention_clip(attention_first_row(b, last) - r, attention_last_row(b, first) - r, count);
}

/* The panel of 16 keys in which those begin that row r sees. */
static inline int64_t attention_first_panel(const attention_block *b, int64_t r) {
    return attention_start(b, r) / L4J_PANEL * L4J_PANEL;
}

/* Rows [first, first + rows) of sequence b. */
static inline attention_block attention_block_of(const l4j_attention *args, int b, int64_t group, int64_t first,
                                                 int64_t rows, int64_t stride) {
    int64_t keys = args->kv_lengths[b], queries = args->q_offsets[b + 1] - args->q_offsets[b];
    attention_block block = {.first = first,
                             .rows = rows,
                             .group = group,
                             .keys = keys,
                             .visible = keys - queries + 1,
                             .causal = args->flags & L4J_ATTENTION_CAUSAL,
                             .window = args->window ? args->window : INT32_MAX,
                             .D = args->q->shape[2],
                             .stride = stride};
    block.origin = attention_first_panel(&block, 0);
    return block;
}

/* Keys that the rows of a block see together, at most; rows ≤ most. */
static inline int64_t attention_span(const l4j_attention *args, int64_t most) {
    return args->window ? l4j_min64(args->max_kv_length, args->window + most + L4J_PANEL) : args->max_kv_length;
}
/* Floats between rows of scores: room for whole tiles, and no multiple of 4 KiB. */
static inline int64_t attention_stride(const l4j_attention *args, int64_t most) {
    return gemm_ceil(attention_span(args, most), 32) + L4J_PANEL;
}
static inline int64_t attention_depth(const l4j_attention *args) { return gemm_ceil(args->q->shape[2], L4J_PANEL); }

/* Packed operands of a thread. */
typedef struct {
    float *a; /* left: panels of rows */
    float *b; /* right: ATTENTION_STEPS rows, transposed or not */
} attention_packs;

static inline attention_packs attention_take_packs(l4j_arena *arena, const l4j_attention *args, int64_t rows) {
    size_t a = (size_t)l4j_max64(gemm_ceil(rows, GEMM_MR) * attention_depth(args), GEMM_MR * ATTENTION_STEPS);
    float *left = l4j_take(arena, sizeof(float) * a);
    return (attention_packs){left, l4j_take(arena, sizeof(float) * (size_t)(ATTENTION_STEPS * attention_depth(args)))};
}

/* Rows [j, j + count) of a head as panels of 16 of them: b[(i / 16) * D * 16 + d * 16 + i % 16]. */
static inline void attention_pack_transposed(float *out, const attention_head *x, int64_t j, int64_t count, int64_t D) {
    const float *from = x->data + j * x->row_stride;
    if (x->col_stride == 1) { /* such rows look like those of a dense weight */
        l4j_weight view = {
            .dtype = L4J_F32, .layout = L4J_LAYOUT_ROWS, .cols = D, .row_stride = x->row_stride, .data = from};
        gemm_pack_b(out, &(gemm_b){.kind = GEMM_B_WEIGHT_TRANS, .weight = &view}, 0, D, 0, count);
    } else {
        gemm_b b = {.kind = GEMM_B_STRIDED, .data = from, .row_stride = x->col_stride, .col_stride = x->row_stride};
        gemm_pack_b(out, &b, 0, D, 0, count);
    }
}
/* Rows [j, j + count) of a head as panels of 16 columns: b[(d / 16) * count * 16 + i * 16 + d % 16]. */
static inline void attention_pack_rows(float *out, const attention_head *x, int64_t j, int64_t count, int64_t D) {
    gemm_b b = {.kind = GEMM_B_STRIDED, .data = x->data, .row_stride = x->row_stride, .col_stride = x->col_stride};
    gemm_pack_b(out, &b, j, count, 0, D);
}

/* out[r, j − origin] = chain over d of x[r, d] · keys[j, d], for every key that row r sees, those before them in their panel of 16,
   and maybe some others. */
static inline void attention_scores(const attention_block *block, const attention_packs *packs, const attention_head *x,
                                    const attention_head *keys, float *out) {
    int64_t D = block->D, height = gemm_height(block->rows), end = attention_limit(block, block->rows - 1);
    gemm_a rows = {.data = x->data, .row_stride = x->row_stride, .col_stride = x->col_stride};
    for (int64_t r = 0; r < block->rows; r += height) {
        gemm_pack_a(packs->a + r * D, (int)height, &rows, r, (int)l4j_min64(height, block->rows - r), 0, D);
    }
    for (int64_t j = attention_first_panel(block, 0); j < end; j += ATTENTION_STEPS) {
        int64_t count = l4j_min64(ATTENTION_STEPS, end - j);
        attention_pack_transposed(packs->b, keys, j, count, D);
        for (int64_t r = 0; r < block->rows; r += height) {
            int64_t tile = l4j_min64(height, block->rows - r);
            int64_t seen = l4j_min64(count, attention_limit(block, r + tile - 1) - j);
            for (int64_t n = l4j_max64(0, attention_first_panel(block, r) - j); n < seen; n += GEMM_NR) {
                gemm_piece piece = {packs->a + r * D, height, packs->b + n * D, D * L4J_PANEL, D};
                int cols = (int)gemm_ceil(l4j_min64(GEMM_NR, seen - n), L4J_PANEL);
                float *to = out + r * block->stride + (j + n - block->origin);
                gemm_tile((int)tile, cols, &piece, 1, NULL, 0, to, block->stride);
            }
        }
    }
}

/* `panels` panels of c, side by side so that their chains overlap; lanes of the last one. */
ROWS_INLINE void attention_chain_panels(float *c, const int panels, int lanes, const float *p, int64_t step,
                                        const float *b, int64_t b_panel, int64_t from, int64_t to) {
    v16 acc[4];
    for (int q = 0; q < panels; q++) acc[q] = v16_load_n(c + q * L4J_PANEL, q == panels - 1 ? lanes : L4J_PANEL);
    for (int64_t i = from; i < to; i++) {
        v16 factor = v16_set1(p[i * step]);
        for (int q = 0; q < panels; q++) acc[q] = v16_fma(factor, v16_load(b + q * b_panel + i * L4J_PANEL), acc[q]);
    }
    for (int q = 0; q < panels; q++) v16_store_n(c + q * L4J_PANEL, acc[q], q == panels - 1 ? lanes : L4J_PANEL);
}

/* c[0..D) continues its chain over i = from..to-1 of p[i * step] · row i of the packed panels. */
static inline void attention_chain(float *c, int64_t D, const float *p, int64_t step, const float *b, int64_t b_panel,
                                   int64_t from, int64_t to) {
    if (from >= to) return;
    int64_t d = 0;
    for (; d + 4 * L4J_PANEL <= D; d += 4 * L4J_PANEL, b += 4 * b_panel) {
        attention_chain_panels(c + d, 4, L4J_PANEL, p, step, b, b_panel, from, to);
    }
    for (; d < D; d += L4J_PANEL, b += b_panel) {
        attention_chain_panels(c + d, 1, (int)l4j_min64(L4J_PANEL, D - d), p, step, b, b_panel, from, to);
    }
}

/* c[r] = chain from +0 over the keys j that row r sees of p[r, j − origin] · x[j]. */
static inline void attention_apply(const attention_block *block, const attention_packs *packs, const float *p,
                                   const attention_head *x, float *c, int64_t ldc) {
    int64_t D = block->D, height = gemm_height(block->rows), end = attention_limit(block, block->rows - 1);
    for (int64_t r = 0; r < block->rows; r++) memset(c + r * ldc, 0, sizeof(float) * (size_t)D);
    for (int64_t j = attention_first_panel(block, 0); j < end; j += ATTENTION_STEPS) {
        int64_t count = l4j_min64(ATTENTION_STEPS, end - j), b_panel = count * L4J_PANEL;
        const float *columns = p + (j - block->origin);
        attention_pack_rows(packs->b, x, j, count, D);
        for (int64_t r = 0; r < block->rows; r += height) {
            int64_t tile = l4j_min64(height, block->rows - r);
            attention_range all = attention_keys(block, r, r + tile - 1, j, count), own;
            for (int64_t i = r; i < r + tile && all.begin > 0; i++) {
                own = attention_keys(block, i, i, j, count);
                attention_chain(c + i * ldc, D, columns + i * block->stride, 1, packs->b, b_panel, own.begin,
                                l4j_min64(own.end, all.begin));
            }
            if (all.begin < all.end) {
                int64_t steps = all.end - all.begin;
                gemm_a rows = {.data = columns, .row_stride = block->stride, .col_stride = 1};
                gemm_pack_a(packs->a, (int)tile, &rows, r, (int)tile, all.begin, steps);
                for (int64_t d = 0; d < D; d += GEMM_NR) {
                    const float *b = packs->b + d / L4J_PANEL * b_panel + all.begin * L4J_PANEL;
                    gemm_piece piece = {packs->a, tile, b, b_panel, steps};
                    float *to = c + r * ldc + d;
                    gemm_tile((int)tile, (int)l4j_min64(GEMM_NR, D - d), &piece, 1, to, ldc, to, ldc);
                }
            }
            for (int64_t i = r; i < r + tile && all.end < count; i++) {
                own = attention_keys(block, i, i, j, count);
                attention_chain(c + i * ldc, D, columns + i * block->stride, 1, packs->b, b_panel,
                                l4j_max64(own.begin, all.end), own.end);
            }
        }
    }
}

/* c[j] continues its chain over the rows r that see key j of p[r, j − origin] · x[r], for j = begin..end-1; group is 1. */
static inline void attention_accumulate(const attention_block *block, const attention_packs *packs, const float *p,
                                        const attention_head *x, int64_t begin, int64_t end, float *c, int64_t ldc) {
    int64_t D = block->D, height = gemm_height(end - begin);
    for (int64_t i = 0; i < block->rows; i += ATTENTION_STEPS) {
        int64_t count = l4j_min64(ATTENTION_STEPS, block->rows - i), b_panel = count * L4J_PANEL;
        int64_t seen = l4j_min64(end, attention_limit(block, i + count - 1));
        int64_t first = begin + l4j_max64(0, attention_start(block, i) - begin) / height * height;
        if (seen <= first) continue;
        const float *rows = p + i * block->stride;
        attention_pack_rows(packs->b, x, i, count, D);
        for (int64_t j = first; j < seen; j += height) {
            int64_t tile = l4j_min64(height, end - j);
            attention_range all = attention_rows(block, j, j + tile - 1, i, count), own;
            for (int64_t k = j; k < j + tile && all.begin > 0; k++) {
                own = attention_rows(block, k, k, i, count);
                attention_chain(c + k * ldc, D, rows + (k - block->origin), block->stride, packs->b, b_panel, own.begin,
                                l4j_min64(own.end, all.begin));
            }
            for (int64_t d = 0; d < D && all.begin < all.end; d += GEMM_NR) {
                const float *b = packs->b + d / L4J_PANEL * b_panel + all.begin * L4J_PANEL;
                const float *from = rows + all.begin * block->stride + (j - block->origin);
                gemm_piece piece = {from, block->stride, b, b_panel, all.end - all.begin};
                float *to = c + j * ldc + d;
                gemm_tile((int)tile, (int)l4j_min64(GEMM_NR, D - d), &piece, 1, to, ldc, to, ldc);
            }
            for (int64_t k = j; k < j + tile && all.end < count; k++) {
                own = attention_rows(block, k, k, i, count);
                attention_chain(c + k * ldc, D, rows + (k - block->origin), block->stride, packs->b, b_panel,
                                l4j_max64(own.begin, all.end), own.end);
            }
        }
    }
}

#endif
