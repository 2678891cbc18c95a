/* Packing of operands: from rows or panels, fp32 or stored halves, plain or transposed, with dropout. */
#include "../bf16.h"
#include "dropout16.h"
#include "gemm.h"
#include "transpose8.h"
#include <string.h>

/* ---- stored values ---- */

/* Eight rows from element k on, transposed: out[i * step] = column k + i. */
static inline __attribute__((always_inline)) void pack_transpose8(float *out, int64_t step, const int32_t dtype,
                                                                  const void *const row[8], int64_t k) {
    __m256 r[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = load8(dtype, row[i], k);
    transpose8(r);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) _mm256_storeu_ps(out + i * step, r[i]);
}
static inline v16 pack_load16(const void *data, int32_t dtype, int64_t i) {
    if (dtype == L4J_F32) return v16_load((const float *)data + i);
    const uint16_t *h = (const uint16_t *)data + i;
    return dtype == L4J_BF16 ? v16_load_bf16(h) : v16_load_f16(h);
}
static inline int64_t pack_size(int32_t dtype) { return dtype == L4J_F32 ? 4 : 2; }

/* ---- B from weights ---- */

/* Up to sixteen rows, `stride` elements apart, transposed: out[k * 16 + i] = row i, column k; +0 where i ≥ live. Eight rows go a
   whole cache line at a time: rows a power of two apart share one set of the cache, which holds no more. The rows that lie `ahead`
   bytes behind are fetched on the way: too many streams, and too short ones, for the processor to see by itself. */
static inline __attribute__((always_inline)) int64_t
pack_lines(float *out, const int32_t dtype, const void *const row[L4J_PANEL], int64_t steps, int64_t ahead) {
    const int64_t line = dtype == L4J_F32 ? 16 : 32;
    int64_t k = 0;
    for (; k + line <= steps; k += line) {
        for (int h = 0; h < L4J_PANEL; h += 8) {
            for (int i = h; i < h + 8 && ahead; i++)
                _mm_prefetch((const char *)row[i] + k * (64 / line) + ahead, _MM_HINT_T1);
            for (int64_t j = k; j < k + line; j += 8)
                pack_transpose8(out + j * L4J_PANEL + h, L4J_PANEL, dtype, row + h, j);
        }
    }
    return k;
}

static void pack_rows_transposed(float *out, const void *data, int32_t dtype, int64_t first, int64_t stride,
                                 int64_t live, int64_t steps, int64_t ahead) {
    const void *row[L4J_PANEL];
    for (int64_t i = 0; i < L4J_PANEL; i++) { /* rows past the end repeat the last one, then become zero */
        row[i] = (const char *)data + (first + l4j_min64(i, live - 1) * stride) * pack_size(dtype);
    }
    int64_t k = dtype == L4J_F32    ? pack_lines(out, L4J_F32, row, steps, ahead)
                : dtype == L4J_BF16 ? pack_lines(out, L4J_BF16, row, steps, ahead)
                                    : pack_lines(out, L4J_F16, row, steps, ahead);
    for (; k < steps; k++) {
        for (int i = 0; i < L4J_PANEL; i++) out[k * L4J_PANEL + i] = gemm_read(row[i], dtype, k);
    }
    for (k = 0; k < steps && live < L4J_PANEL; k++) {
        for (int64_t i = live; i < L4J_PANEL; i++) out[k * L4J_PANEL + i] = 0;
    }
}

/* B[k, n] = W[n, k]. */
static void pack_weight_trans(float *out, const l4j_weight *w, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    for (int64_t j = 0; j < cols; j += L4J_PANEL, out += steps * L4J_PANEL) {
        if (w->layout == L4J_LAYOUT_ROWS) {
            bool more = n + j + 2 * L4J_PANEL <= w->rows;
            pack_rows_transposed(out, w->data, w->dtype, (n + j) * w->row_stride + k, w->row_stride,
                                 l4j_min64(L4J_PANEL, cols - j), steps,
                                 more ? L4J_PANEL * w->row_stride * pack_size(w->dtype) : 0);
            continue;
        }
        int64_t from = ((n + j) / L4J_PANEL * w->cols + k) * L4J_PANEL;
        for (int64_t i = 0; i < steps * L4J_PANEL; i += L4J_PANEL)
            v16_store(out + i, pack_load16(w->data, w->dtype, from + i));
    }
}

enum {
    PACK_COLUMNS = 256, /* written side by side: more panels at once would fight for the cache */
    PACK_AHEAD = 1024 /* values, in whole rows: they may lie on pages of their own, where no hardware prefetcher goes */
};

/* B[k, n] at data[first + k * stride + n]: slices of sixteen columns. */
static void pack_slices(float *out, const void *data, int32_t dtype, int64_t first, int64_t stride, int64_t steps,
                        int64_t cols) {
    int64_t whole = cols / L4J_PANEL * L4J_PANEL;
    for (int64_t begin = 0; begin < whole; begin += PACK_COLUMNS) {
        int64_t end = l4j_min64(begin + PACK_COLUMNS, whole), rows = PACK_AHEAD / (end - begin);
        for (int64_t s = 0; s < steps; s++) {
            int64_t from = first + s * stride, ahead = first + l4j_min64(s + rows, steps - 1) * stride;
            float *to = out + begin * steps + s * L4J_PANEL;
            for (int64_t j = begin; j < end; j += L4J_PANEL, to += steps * L4J_PANEL) {
                _mm_prefetch((const char *)data + (ahead + j) * pack_size(dtype), _MM_HINT_T0);
                v16_store(to, pack_load16(data, dtype, from + j));
            }
        }
    }
    for (int64_t s = 0; s < steps && whole < cols; s++) {
        float *to = out + whole * steps + s * L4J_PANEL;
        for (int64_t i = whole; i < whole + L4J_PANEL; i++) {
            to[i - whole] = i < cols ? gemm_read(data, dtype, first + s * stride + i) : 0;
        }
    }
}

/* The last columns of a panel's row: out[i * 16 + j] = lane i of column j, +0 where j >= live. */
static void pack_ragged(float *out, const l4j_weight *w, int64_t at, int64_t live) {
    for (int64_t i = 0; i < L4J_PANEL; i++) {
        for (int64_t j = 0; j < L4J_PANEL; j++)
            out[i * L4J_PANEL + j] = j < live ? gemm_read(w->data, w->dtype, at + j * L4J_PANEL + i) : 0;
    }
}

/* Sixteen columns of sixteen lanes from element `at` on, transposed. */
static inline __attribute__((always_inline)) void pack_square(float *out, const int32_t dtype, const void *data,
                                                              int64_t at) {
    for (int h = 0; h < L4J_PANEL; h += 8) {
        const void *column[8];
        for (int i = 0; i < 8; i++) column[i] = (const char *)data + (at + (h + i) * L4J_PANEL) * pack_size(dtype);
        pack_transpose8(out + h, L4J_PANEL, dtype, column, 0);
        pack_transpose8(out + h + 8 * L4J_PANEL, L4J_PANEL, dtype, column, 8);
    }
}

/* B[k, n] = W[k, n] from panels, whose lanes are the contraction: blocks of sixteen steps are transposed. */
static void pack_weight_panels(float *out, const l4j_weight *w, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    for (int64_t s = 0; s < steps; s += L4J_PANEL) {
        int64_t live = l4j_min64(L4J_PANEL, steps - s), from = ((k + s) / L4J_PANEL * w->cols + n) * L4J_PANEL;
        float *to = out + s * L4J_PANEL;
        for (int64_t j = 0; j < cols; j += L4J_PANEL, to += steps * L4J_PANEL) {
            float block[L4J_PANEL * L4J_PANEL], *target = live == L4J_PANEL ? to : block;
            int64_t at = from + j * L4J_PANEL;
            if (cols - j < L4J_PANEL) {
                pack_ragged(target, w, at, cols - j);
            } else if (w->dtype == L4J_F32) {
                pack_square(target, L4J_F32, w->data, at);
            } else if (w->dtype == L4J_BF16) {
                pack_square(target, L4J_BF16, w->data, at);
            } else {
                pack_square(target, L4J_F16, w->data, at);
            }
            if (target == block) memcpy(to, block, sizeof(float) * (size_t)(live * L4J_PANEL));
        }
    }
}

/* B[k, n] from a weight in tiles of bf16: not what they are for, and value by value. */
static void pack_weight_tiles(float *out, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    const l4j_weight *w = b->weight;
    bool quads = w->layout == L4J_LAYOUT_QUAD_TILES, transposed = b->kind == GEMM_B_WEIGHT_TRANS;
    for (int64_t j = 0; j < cols; j += L4J_PANEL, out += steps * L4J_PANEL) {
        for (int64_t s = 0; s < steps; s++) {
            for (int64_t i = 0; i < L4J_PANEL; i++) {
                int64_t row = transposed ? n + j + i : k + s, col = transposed ? k + s : n + j + i;
                int64_t at = l4j_tile_index(quads, w->cols, row, col);
                out[s * L4J_PANEL + i] = j + i < cols ? l4j_bf16_to_f32(((const uint16_t *)w->data)[at]) : 0;
            }
        }
    }
}

/* ---- B from strided tensors ---- */

static void pack_strided(float *out, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    int64_t first = k * b->row_stride + n * b->col_stride;
    if (b->col_stride == 1) {
        pack_slices(out, b->data, L4J_F32, first, b->row_stride, steps, cols);
        return;
    }
    for (int64_t j = 0; j < cols; j += L4J_PANEL, out += steps * L4J_PANEL) {
        int64_t live = l4j_min64(L4J_PANEL, cols - j), from = first + j * b->col_stride;
        if (b->row_stride == 1) {
            pack_rows_transposed(out, b->data, L4J_F32, from, b->col_stride, live, steps, 0);
            continue;
        }
        for (int64_t s = 0; s < steps; s++) {
            for (int64_t i = 0; i < L4J_PANEL; i++) {
                out[s * L4J_PANEL + i] = i < live ? b->data[from + s * b->row_stride + i * b->col_stride] : 0;
            }
        }
    }
}

/* Dropout over packed panels of columns [n, n + cols), n a multiple of 16. */
static void pack_drop(float *panels, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    for (int64_t j = 0; j < cols; j += L4J_PANEL) {
        const uint32_t *kept = b->kept + k * b->kept_stride + (n + j) / L4J_DROPOUT_BLOCK;
        for (int64_t s = 0; s < steps; s++) {
            float *p = panels + j * steps + s * L4J_PANEL;
            v16_store(p, v16_keep(v16_load(p), kept[s * b->kept_stride] >> (n + j) % L4J_DROPOUT_BLOCK));
        }
    }
}

void gemm_pack_b(float *out, const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    if (cols <= 0) return;
    if (b->kind == GEMM_B_STRIDED) {
        pack_strided(out, b, k, steps, n, cols);
        if (b->kept) pack_drop(out, b, k, steps, n, cols);
    } else if (b->weight->layout == L4J_LAYOUT_CODES) {
        gemm_pack_codes(out, b, k, steps, n, cols);
    } else if (l4j_in_tiles(b->weight)) {
        pack_weight_tiles(out, b, k, steps, n, cols);
    } else if (b->kind == GEMM_B_WEIGHT_TRANS) {
        pack_weight_trans(out, b->weight, k, steps, n, cols);
    } else if (b->weight->layout == L4J_LAYOUT_ROWS) {
        const l4j_weight *w = b->weight;
        pack_slices(out, w->data, w->dtype, k * w->row_stride + n, w->row_stride, steps, cols);
    } else {
        pack_weight_panels(out, b->weight, k, steps, n, cols);
    }
}

/* ---- A ---- */

/* Four rows (`live` of them real) transposed into a panel: out[k * height + i]. Only `live` floats of a step are written. The rows
   that lie `ahead` bytes behind are fetched on the way. */
static inline __attribute__((always_inline)) void pack_quad(float *out, int height, const float *const rows[4],
                                                            const int live, int64_t steps, int64_t ahead) {
    int64_t k = 0;
    for (; k + 8 <= steps; k += 8) {
        if (ahead && k % 16 == 0) {
            for (int i = 0; i < live; i++) _mm_prefetch((const char *)(rows[i] + k) + ahead, _MM_HINT_T0);
        }
        __m256 r0 = _mm256_loadu_ps(rows[0] + k), r1 = live > 1 ? _mm256_loadu_ps(rows[1] + k) : r0;
        __m256 r2 = live > 2 ? _mm256_loadu_ps(rows[2] + k) : r0, r3 = live > 3 ? _mm256_loadu_ps(rows[3] + k) : r0;
        __m256 t0 = _mm256_unpacklo_ps(r0, r1), t1 = _mm256_unpackhi_ps(r0, r1);
        __m256 t2 = _mm256_unpacklo_ps(r2, r3), t3 = _mm256_unpackhi_ps(r2, r3);
        __m256 q[4] = {_mm256_shuffle_ps(t0, t2, 0x44), _mm256_shuffle_ps(t0, t2, 0xEE),
                       _mm256_shuffle_ps(t1, t3, 0x44), _mm256_shuffle_ps(t1, t3, 0xEE)};
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m128 column = i < 4 ? _mm256_castps256_ps128(q[i]) : _mm256_extractf128_ps(q[i - 4], 1);
            float *to = out + (k + i) * height;
            if (live == 4) _mm_storeu_ps(to, column);
            if (live == 2 || live == 3) _mm_storel_pi((__m64 *)to, column);
            if (live == 3) _mm_store_ss(to + 2, _mm_movehl_ps(column, column));
            if (live == 1) _mm_store_ss(to, column);
        }
    }
    for (; k < steps; k++) {
        for (int i = 0; i < live; i++) out[k * height + i] = rows[i][k];
    }
}

static void pack_panel(float *out, int height, const float *const rows[GEMM_MR], int64_t steps, int64_t ahead) {
    int i = 0;
    for (; i + 4 <= height; i += 4) pack_quad(out + i, height, rows + i, 4, steps, ahead);
    switch (height - i) {
    case 3: pack_quad(out + i, height, rows + i, 3, steps, ahead); break;
    case 2: pack_quad(out + i, height, rows + i, 2, steps, ahead); break;
    case 1: pack_quad(out + i, height, rows + i, 1, steps, ahead); break;
    default: break;
    }
}

void gemm_gather(float *out, const gemm_a *a, const dropout_keys *keys, int64_t m, int64_t k, int64_t steps) {
    const float *from = a->data + m * a->row_stride + k * a->col_stride;
    if (a->col_stride != 1) {
        for (int64_t s = 0; s < steps; s++) out[s] = from[s * a->col_stride];
        from = out;
    }
    if (!keys) return;
    for (int64_t s = 0; s < steps; s += DROPOUT_DRAWN * L4J_DROPOUT_BLOCK) {
        uint32_t kept[DROPOUT_DRAWN];
        dropout_kept(a->dropout, keys, a->dropout->token_index[m], (k + s) / L4J_DROPOUT_BLOCK, kept);
        for (int64_t j = 0; j < l4j_min64(DROPOUT_DRAWN * L4J_DROPOUT_BLOCK, steps - s); j += L4J_PANEL) {
            v16 x = gemm_load(from + s + j, (int)l4j_min64(steps - s - j, L4J_PANEL));
            v16_store(out + s + j, v16_keep(x, kept[j / L4J_DROPOUT_BLOCK] >> j % L4J_DROPOUT_BLOCK));
        }
    }
}

void gemm_pack_a(float *out, int height, const gemm_a *a, int64_t m, int rows, int64_t k, int64_t steps) {
    float buffer[GEMM_MR + 1][GEMM_KC];
    const float *row[GEMM_MR];
    bool drops = a->dropout && a->dropout->threshold, plain = a->col_stride == 1 && !drops;
    dropout_keys keys;
    if (drops) dropout_keys_init(&keys, a->dropout);
    if (rows < height) memset(buffer[GEMM_MR], 0, sizeof(buffer[0]));
    for (int i = 0; i < height; i++) {
        if (i >= rows) {
            row[i] = buffer[GEMM_MR];
        } else if (plain) {
            row[i] = a->data + (m + i) * a->row_stride + k;
        } else {
            gemm_gather(buffer[i], a, drops ? &keys : NULL, m + i, k, steps);
            row[i] = buffer[i];
        }
    }
    pack_panel(out, height, row, steps, plain ? (int64_t)sizeof(float) * height * a->row_stride : 0);
}
