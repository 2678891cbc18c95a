/*
 * The loops around the micro-kernel, after Goto & van de Geijn 2008 and BLIS: blocks of the contraction outermost, so that a
 * packed panel of B stays in L1 and packed rows of A in L2. Threads pack a block together, meet, and share its tiles out in a
 * fixed grid. With few rows of A each thread instead streams its own columns of B once, without meeting the others.
 */
#include "gemm.h"

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

/* Panel `panel` of A, column `j` of the block of B that starts at `block`: one tile of C. */
static inline void gemm_product_tile(const gemm_product *p, const gemm_piece *block, int count, bool first,
                                     int64_t panel, int64_t n, int64_t j) {
    gemm_piece piece[2];
    for (int q = 0; q < count; q++) {
        piece[q] = block[q];
        piece[q].a += panel * p->height * block[q].k;
        piece[q].b += j / L4J_PANEL * block[q].b_panel;
    }
    int64_t m = panel * p->height;
    int rows = (int)l4j_min64(p->height, p->m - m), cols = (int)l4j_min64(GEMM_NR, p->n - n - j);
    float *c = p->c + m * p->ldc + n + j;
    const float *start = first ? p->start : p->c;
    int64_t start_stride = first ? p->start_stride : p->ldc;
    gemm_tile(rows, cols, piece, count, start ? start + m * start_stride + n + j : NULL, start_stride, c, p->ldc);
}

/* ---- many rows: shared blocks ---- */

/* Packs this thread's share of a block. Returns whether anything is packed by anyone. */
static bool gemm_pack_block(gemm_team *team, const gemm_product *p, const gemm_part *part, int count, int64_t n,
                            int64_t cols, gemm_piece *piece) {
    int64_t panels = gemm_panels(p->m, p->height), begin, end;
    float *b = team->b[team->turn], *a = team->a[team->turn];
    bool packed = false;
    for (int q = 0; q < count; q++) {
        const gemm_segment *s = part[q].segment;
        piece[q] = (gemm_piece){.a_step = p->height, .k = part[q].steps};
        if (s->packed) {
            piece[q].a = s->packed + part[q].k * panels * p->height;
        } else {
            packed = true;
            piece[q].a = a;
            l4j_partition(panels, 1, team->thread, team->threads, &begin, &end);
            for (int64_t i = begin; i < end; i++) {
                int64_t m = i * p->height;
                gemm_pack_a(a + m * part[q].steps, p->height, &s->a, m, (int)l4j_min64(p->height, p->m - m), part[q].k,
                            part[q].steps);
            }
            a += panels * p->height * part[q].steps;
        }
        if (gemm_in_place(&s->b)) {
            gemm_set_b_in_place(&piece[q], &part[q], n);
        } else {
            packed = true;
            piece[q].b = b;
            piece[q].b_panel = part[q].steps * L4J_PANEL;
            l4j_partition(cols, L4J_DROPOUT_BLOCK, team->thread, team->threads, &begin, &end);
            gemm_pack_b(b + begin * part[q].steps, &s->b, part[q].k, part[q].steps, n + begin, end - begin);
            b += gemm_ceil(cols, L4J_PANEL) * part[q].steps;
        }
    }
    return packed;
}

/* Threads in the direction of rows, such that the busiest thread has least to do. */
static int gemm_grid_rows(int threads, int64_t panels, int64_t units) {
    int best = 1;
    int64_t least = INT64_MAX;
    for (int rows = 1; rows <= threads; rows++) {
        if (threads % rows) continue;
        int columns = threads / rows;
        int64_t work = ((panels + rows - 1) / rows) * ((units + columns - 1) / columns);
        if (work < least) {
            least = work;
            best = rows;
        }
    }
    return best;
}

static void gemm_run_blocked(gemm_team *team, const gemm_product *p) {
    int64_t panels = gemm_panels(p->m, p->height), group = GEMM_MC / p->height;
    for (int64_t n = 0; n < p->n; n += GEMM_NC) {
        int64_t cols = l4j_min64(GEMM_NC, p->n - n), units = gemm_ceil(cols, GEMM_NR) / GEMM_NR, i0, i1, j0, j1;
        int grid = gemm_grid_rows(team->threads, panels, units), columns = team->threads / grid;
        l4j_partition(panels, 1, team->thread / columns, grid, &i0, &i1);
        l4j_partition(units, 1, team->thread % columns, columns, &j0, &j1);
        gemm_cursor at = {0};
        gemm_part part[2];
        gemm_piece piece[2];
        bool first = true;
        for (int count; (count = gemm_next(p, &at, part)) > 0; first = false) {
            if (gemm_pack_block(team, p, part, count, n, cols, piece)) {
                l4j_pool_barrier(team->pool);
                team->turn ^= 1;
            }
            for (int64_t i = i0; i < i1; i += group) {
                for (int64_t j = j0; j < j1; j++) {
                    for (int64_t panel = i; panel < l4j_min64(i + group, i1); panel++) {
                        gemm_product_tile(p, piece, count, first, panel, n, j * GEMM_NR);
                    }
                }
            }
        }
    }
}

/* ---- few rows: each thread streams its own columns ---- */

static void gemm_run_streamed(gemm_team *team, const gemm_product *p) {
    int64_t panels = gemm_panels(p->m, p->height), begin, end;
    l4j_partition(p->n, GEMM_NR, team->thread, team->threads, &begin, &end);
    for (int64_t n = begin; n < end; n += GEMM_NR) {
        int64_t cols = l4j_min64(GEMM_NR, end - n);
        gemm_cursor at = {0};
        gemm_part part[2];
        bool first = true;
        for (int count; (count = gemm_next(p, &at, part)) > 0; first = false) {
            gemm_piece piece[2];
            float *own = team->own;
            for (int q = 0; q < count; q++) {
                const gemm_segment *s = part[q].segment;
                piece[q] = (gemm_piece){
                    .a = s->packed + part[q].k * panels * p->height, .a_step = p->height, .k = part[q].steps};
                if (gemm_in_place(&s->b)) {
                    gemm_set_b_in_place(&piece[q], &part[q], n);
                } else {
                    gemm_pack_b(own, &s->b, part[q].k, part[q].steps, n, cols);
                    piece[q].b = own;
                    piece[q].b_panel = part[q].steps * L4J_PANEL;
                    own += gemm_ceil(cols, L4J_PANEL) * part[q].steps;
                }
            }
            for (int64_t panel = 0; panel < panels; panel++) gemm_product_tile(p, piece, count, first, panel, n, 0);
        }
    }
}

static bool gemm_is_packed(const gemm_product *p) {
    for (int s = 0; s < p->segments; s++) {
        if (!p->segment[s].packed) return false;
    }
    return true;
}

void gemm_run(gemm_team *team, const gemm_product *product) {
    if (product->m == 0 || product->n == 0) return;
    if (gemm_is_packed(product) && gemm_streams(product->m, product->n, team->threads)) {
        gemm_run_streamed(team, product);
    } else {
        gemm_run_blocked(team, product);
    }
}
