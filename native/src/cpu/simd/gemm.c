/*
 * The loops around the micro-kernel, after Goto & van de Geijn 2008: a packed panel of B stays in L1, packed rows of A in L2; while
 * the tiles of one panel of B are computed, the next panel is fetched from L3 or memory into L2. A is packed before, by all threads;
 * then each of them takes columns, packs them, and streams the rows past them without meeting the others.
 */
#include "gemm.h"
#include "../bf16.h"

/* Part of a block: steps [k, k + steps) of one segment. */
typedef struct {
    const gemm_segment *segment;
    int64_t k, steps;
} gemm_part;

typedef struct {
    int segment;
    int64_t k;
} gemm_cursor;

/* The next block: one part, or two where one of two neighbours is short (the low-rank part of lora). 0 at the end. */
static int gemm_next(const gemm_product *p, gemm_cursor *at, gemm_part part[2]) {
    int count = 0;
    while (count < 2 && at->segment < p->segments) {
        const gemm_segment *s = &p->segment[at->segment];
        if (count == 1 && (at->k > 0 || (s->k > GEMM_SMALL && part[0].segment->k > GEMM_SMALL))) break;
        int64_t steps = l4j_min64(gemm_block(s->k), s->k - at->k);
        part[count++] = (gemm_part){s, at->k, steps};
        at->k += steps;
        if (at->k == s->k) {
            at->segment++;
            at->k = 0;
        }
    }
    return count;
}

/* fp32 panels of a packed weight are what the micro-kernel reads: no copy. */
static bool gemm_in_place(const gemm_b *b) {
    return b->kind == GEMM_B_WEIGHT_TRANS && b->weight->layout == L4J_LAYOUT_PANELS && b->weight->dtype == L4J_F32;
}
static void gemm_set_b_in_place(gemm_piece *piece, const gemm_part *part, int64_t n) {
    const l4j_weight *w = part->segment->b.weight;
    piece->b = (const float *)w->data + (n / L4J_PANEL * w->cols + part->k) * L4J_PANEL;
    piece->b_panel = w->cols * L4J_PANEL;
}

/* Fetches part `part` of `parts` of the columns behind a piece's into L2. */
static inline void gemm_fetch_next(const gemm_piece *piece, int64_t part, int64_t parts) {
    int64_t share = (piece->k + parts - 1) / parts, end = l4j_min64((part + 1) * share, piece->k);
    const float *next = piece->b + GEMM_NV * piece->b_panel;
    for (int64_t k = part * share; k < end; k++) {
        for (int v = 0; v < GEMM_NV; v++)
            _mm_prefetch((const char *)(next + v * piece->b_panel + k * L4J_PANEL), _MM_HINT_T1);
    }
}

/* Asks for the tile of C at row m and column n: its lines are a stride apart and often on pages of their own. */
static inline void gemm_fetch_c(const gemm_product *p, int64_t m, int64_t n) {
    const float *c = p->c + m * p->ldc + n;
    int64_t rows = l4j_min64(p->height, p->m - m);
    for (int64_t i = 0; i < rows; i++, c += p->ldc) {
        for (int v = 0; v < GEMM_NV; v++) _mm_prefetch((const char *)(c + v * L4J_PANEL), _MM_HINT_T1);
    }
}

/* Stored values that are packed next: `rows` stretches of `lines` cache lines each. They are fetched into L2 while tiles are computed,
   so that packing does not wait for memory. */
typedef struct {
    const char *row;
    int64_t stride, rows, lines, line;
} gemm_fetch;

static inline void gemm_fetch_lines(gemm_fetch *next, int64_t count) {
    for (; count > 0 && next->rows > 0; count--) {
        _mm_prefetch(next->row + 64 * next->line, _MM_HINT_T1);
        if (++next->line == next->lines) {
            next->line = 0;
            next->row += next->stride;
            next->rows--;
        }
    }
}

/* Where steps [k, k + steps) and columns [n, n + cols) of a weight in rows or panels lie; nothing for other operands. */
static gemm_fetch gemm_find(const gemm_b *b, int64_t k, int64_t steps, int64_t n, int64_t cols) {
    if (b->kind == GEMM_B_STRIDED) return (gemm_fetch){0};
    const l4j_weight *w = b->weight;
    if (w->layout != L4J_LAYOUT_ROWS && w->layout != L4J_LAYOUT_PANELS) return (gemm_fetch){0};
    bool trans = b->kind == GEMM_B_WEIGHT_TRANS;
    int64_t size = w->dtype == L4J_F32 ? 4 : 2, row = trans ? n : k, col = trans ? k : n;
    int64_t rows = l4j_min64(trans ? cols : steps, w->rows - row),
            width = l4j_min64(trans ? steps : cols, w->cols - col);
    if (w->layout == L4J_LAYOUT_ROWS) {
        return (gemm_fetch){.row = (const char *)w->data + (row * w->row_stride + col) * size,
                            .stride = w->row_stride * size,
                            .rows = rows,
                            .lines = (width * size + 63) / 64};
    }
    return (gemm_fetch){.row = (const char *)w->data + (row / L4J_PANEL * w->cols + col) * L4J_PANEL * size,
                        .stride = w->cols * L4J_PANEL * size,
                        .rows = (rows + L4J_PANEL - 1) / L4J_PANEL,
                        .lines = (width * L4J_PANEL * size + 63) / 64};
}

/* Tiles of panels [i0, i1) and columns [j0, j1) of one block, whose columns start at n of C. */
static void gemm_run_group(const gemm_product *p, const gemm_piece *block, int count, bool first, int64_t i0,
                           int64_t i1, int64_t n, int64_t j0, int64_t j1, gemm_fetch *next) {
    int64_t tiles = (i1 - i0) * (gemm_ceil(j1 - j0, GEMM_NR) / GEMM_NR);
    int64_t share = next->rows * next->lines / l4j_max64(tiles, 1) + 1;
    const float *start = first ? p->start : p->c;
    int64_t start_stride = first ? p->start_stride : p->ldc;
    for (int64_t j = j0; j < j1; j += GEMM_NR) {
        int cols = (int)l4j_min64(GEMM_NR, p->n - n - j);
        for (int64_t i = i0; i < i1; i++) {
            int64_t m = i * p->height;
            if (i + 1 < i1) {
                gemm_fetch_c(p, m + p->height, n + j);
            } else if (j + GEMM_NR < j1) {
                gemm_fetch_c(p, i0 * p->height, n + j + GEMM_NR);
            }
            gemm_fetch_lines(next, share);
            gemm_piece piece[2];
            for (int q = 0; q < count; q++) {
                piece[q] = block[q];
                piece[q].a += m * block[q].k;
                piece[q].b += j / L4J_PANEL * block[q].b_panel;
                if (j + GEMM_NR < j1) gemm_fetch_next(&piece[q], i - i0, i1 - i0);
            }
            gemm_tile((int)l4j_min64(p->height, p->m - m), cols, piece, count,
                      start ? start + m * start_stride + n + j : NULL, start_stride, p->c + m * p->ldc + n + j, p->ldc);
        }
    }
}

/* Columns taken at once; of a weight whose rows lie across the contraction enough for whole cache lines to follow one another. */
static int64_t gemm_stream_columns(const gemm_product *p) {
    for (int s = 0; s < p->segments; s++) {
        const gemm_b *b = &p->segment[s].b;
        if (b->kind == GEMM_B_WEIGHT && b->weight->layout != L4J_LAYOUT_PANELS) return GEMM_STREAM;
    }
    return GEMM_STRIP;
}

/* What a thread packs after the block that ends at `at` of the columns from n on. */
static gemm_fetch gemm_stream_next(const gemm_product *p, gemm_cursor at, int64_t n, int64_t width, int64_t end) {
    gemm_part part[2];
    int count = gemm_next(p, &at, part);
    if (count == 0 && n + width < end) {
        at = (gemm_cursor){0};
        n += width;
        count = gemm_next(p, &at, part);
    }
    gemm_fetch next = {0};
    /* Hundreds of short stretches a page apart stay in L2 only while few tiles come between. */
    if (width == GEMM_STREAM && p->m > GEMM_MC) return next;
    for (int q = 0; q < count && !next.rows; q++)
        next = gemm_find(&part[q].segment->b, part[q].k, part[q].steps, n, l4j_min64(width, end - n));
    return next;
}

void gemm_stream(const gemm_team *team, const gemm_product *p, const gemm_area *area) {
    int64_t padded = gemm_panels(p->m, p->height) * p->height, width = gemm_stream_columns(p);
    for (int64_t n = area->n0; n < area->n1; n += width) {
        int64_t cols = l4j_min64(width, area->n1 - n);
        gemm_cursor at = {0};
        gemm_part part[2];
        bool first = true;
        for (int count; (count = gemm_next(p, &at, part)) > 0; first = false) {
            gemm_piece piece[2];
            float *own = team->own;
            for (int q = 0; q < count; q++) {
                const gemm_segment *s = part[q].segment;
                piece[q] = (gemm_piece){.a = s->packed + part[q].k * padded, .a_step = p->height, .k = part[q].steps};
                if (gemm_in_place(&s->b)) {
                    gemm_set_b_in_place(&piece[q], &part[q], n);
                } else {
                    gemm_pack_b(own, &s->b, part[q].k, part[q].steps, n, cols);
                    piece[q].b = own;
                    piece[q].b_panel = part[q].steps * L4J_PANEL;
                    own += gemm_ceil(cols, L4J_PANEL) * part[q].steps;
                }
            }
            gemm_fetch next = gemm_stream_next(p, at, n, width, area->n1);
            gemm_run_group(p, piece, count, first, area->i0, area->i1, n, 0, cols, &next);
        }
    }
}

gemm_areas gemm_share(gemm_team *team, const gemm_product *p) {
    int64_t panels = gemm_panels(p->m, p->height), units = gemm_ceil(p->n, GEMM_NR) / GEMM_NR;
    int64_t wanted = team->threads == 1 ? 1 : (4 * team->threads + units - 1) / units;
    return (gemm_areas){.n = p->n,
                        .panels = panels,
                        .unit = GEMM_NR,
                        .units = units,
                        .groups = l4j_max64(1, l4j_min64(wanted, panels)),
                        .most = team->threads == 1 ? units : l4j_max64(gemm_stream_columns(p), GEMM_CLAIM) / GEMM_NR,
                        .taken = gemm_begin(team)};
}

bool gemm_next_area(gemm_team *team, gemm_areas *s, gemm_area *area) {
    if (s->begin == s->end && !gemm_claim(team, &s->taken, s->units * s->groups, s->most, &s->begin, &s->end))
        return false;
    int64_t group = s->begin / s->units, first = s->begin % s->units;
    int64_t last = l4j_min64(s->units, first + s->end - s->begin);
    l4j_partition(s->panels, 1, (int)group, (int)s->groups, &area->i0, &area->i1);
    area->n0 = first * s->unit;
    area->n1 = l4j_min64(last * s->unit, s->n);
    s->begin += last - first;
    return true;
}

static bool gemm_is_few(const gemm_team *team, const gemm_product *p) {
    bool few = team->few && p->m <= L4J_PANEL;
    for (int s = 0; s < p->segments; s++) few &= gemm_b_is_rows(&p->segment[s].b);
    return few;
}

static bool gemm_is_row(const gemm_product *p) {
    bool row = p->m <= 2;
    for (int s = 0; s < p->segments; s++) {
        const gemm_b *b = &p->segment[s].b;
        row &= (b->kind == GEMM_B_WEIGHT_TRANS && !l4j_in_tiles(b->weight)) ||
               (b->kind == GEMM_B_STRIDED && p->segment[s].k <= GEMM_KC);
    }
    return row;
}

void gemm_run(gemm_team *team, const gemm_product *product) {
    if (product->m == 0 || product->n == 0) return;
    if (gemm_is_row(product)) {
        gemm_run_row(team, product);
    } else if (gemm_is_few(team, product)) {
        gemm_run_few(team, product);
    } else if (gemm_is_across(product)) {
        gemm_run_across(team, product);
    } else {
        gemm_areas areas = gemm_share(team, product);
        gemm_area area;
        while (gemm_next_area(team, &areas, &area)) gemm_stream(team, product, &area);
    }
}
