/*
 * The loops around the tile kernels. Threads claim areas of C. In one, rows go in groups whose part of A stays in L2 while columns
 * stream past it: for each pair of panels of B a few tiles of the contraction at once, which stay in L1 while the rows go by, the
 * following ones being fetched meanwhile. Sums wait between these passes, which does not change bits. Operands B that do not lie in
 * tiles are packed by whoever claimed their columns, who then takes all rows, so that each is packed once.
 */
#include "bf16.h"
#include <string.h>

void bf16_tiles(const l4j_tile_kernel *kernel, int first, int rows, int cols, const l4j_tile_piece *pieces, int count,
                const float *start, int64_t start_stride, float *c, int64_t ldc) {
    int panels = (int)bf16_panels(cols), height = (int)bf16_panels(first + rows) * L4J_TILE_ROWS;
    bool ragged = first > 0 || (kernel->whole && rows < height);
    if (!ragged && cols == panels * L4J_TILE_ROWS) {
        kernel->run(rows, panels, pieces, count, start, start_stride, c, ldc);
        return;
    }
    /* Edges go through a full tile of C, so that nothing outside of it is touched. */
    float tile[BF16_COLS * BF16_COLS] __attribute__((aligned(64))) = {0};
    for (int i = 0; i < rows && start; i++)
        memcpy(tile + (first + i) * BF16_COLS, start + i * start_stride, sizeof(float) * (size_t)cols);
    kernel->run(kernel->whole ? height : first + rows, panels, pieces, count, tile, BF16_COLS, tile, BF16_COLS);
    for (int i = 0; i < rows; i++) memcpy(c + i * ldc, tile + (first + i) * BF16_COLS, sizeof(float) * (size_t)cols);
}

/* ---- stretches of the contraction ---- */

typedef struct {
    int piece;
    int64_t tile;
} bf16_cursor;

/* The next `most` tiles of a contraction: of one piece, and all of the following one where that is short. 0 at the end. */
static int bf16_next(const l4j_tile_piece *pieces, int count, int64_t most, bf16_cursor *at, l4j_tile_piece next[2]) {
    int taken = 0;
    while (taken < 2 && at->piece < count) {
        l4j_tile_piece p = pieces[at->piece];
        int64_t left = p.tiles - at->tile, tiles = l4j_min64(most, left);
        if (taken == 1 && (at->tile > 0 || tiles < left || tiles + next[0].tiles > most + most / 4)) break;
        p.a += at->tile * L4J_TILE;
        p.b += at->tile * L4J_TILE;
        p.tiles = tiles;
        next[taken++] = p;
        at->tile += tiles;
        if (tiles < left) break;
        at->piece++;
        at->tile = 0;
    }
    return taken;
}

/* ---- tiles of C ---- */

/* Copies rows of up to BF16_COLS columns. */
static void bf16_copy(float *to, int64_t to_stride, const float *from, int64_t from_stride, int rows, int cols) {
    for (int i = 0; i < rows; i++) memcpy(to + i * to_stride, from + i * from_stride, sizeof(float) * (size_t)cols);
}

/* One pass over a few tiles of the contraction for all rows of a strip: `ahead` leads to the B of the pass that follows. */
static void bf16_pass(const l4j_tile_kernel *kernel, const l4j_tile_piece *piece, int count, int64_t ahead, int rows,
                      int panels, const float *start, int64_t start_stride, float *c, int64_t ldc) {
    for (int i = 0; i < rows; i += BF16_COLS) {
        l4j_tile_piece at[2];
        for (int q = 0; q < count; q++) {
            at[q] = piece[q];
            at[q].a += i / L4J_TILE_ROWS * piece[q].a_panel;
        }
        at[0].ahead = i == 0 ? ahead : 0;
        kernel->run((int)l4j_min64(BF16_COLS, rows - i), panels, at, count, start ? start + i * start_stride : NULL,
                    start_stride, c + i * ldc, ldc);
    }
}

/* A strip of C: up to BF16_GROUP rows and BF16_COLS columns. Between passes its sums wait on the stack, side by side. */
static void bf16_strip(const l4j_tile_kernel *kernel, const l4j_tile_piece *pieces, int count, bool last, int rows,
                       int cols, const float *start, int64_t start_stride, float *c, int64_t ldc) {
    float sums[BF16_GROUP * BF16_COLS] __attribute__((aligned(64)));
    int panels = (int)bf16_panels(cols), height = kernel->whole ? (int)bf16_panels(rows) * L4J_TILE_ROWS : rows;
    bool ragged = height > rows || cols < panels * L4J_TILE_ROWS; /* nothing outside of C is touched */
    if (ragged && start) {
        memset(sums, 0, sizeof sums);
        bf16_copy(sums, BF16_COLS, start, start_stride, rows, cols);
        start = sums;
        start_stride = BF16_COLS;
    }
    bf16_cursor at = {0};
    l4j_tile_piece pass[2][2];
    int turn = 0, now = bf16_next(pieces, count, BF16_KC, &at, pass[0]);
    while (now > 0) {
        const l4j_tile_piece *piece = pass[turn], *next = pass[turn ^ 1];
        int then = bf16_next(pieces, count, BF16_KC, &at, pass[turn ^ 1]);
        int64_t ahead = then ? next->b - piece->b : last ? 0 : pieces->b + 2 * pieces->b_panel - piece->b;
        bool end = !then && !ragged;
        bf16_pass(kernel, piece, now, ahead, height, panels, start, start_stride, end ? c : sums,
                  end ? ldc : BF16_COLS);
        start = sums;
        start_stride = BF16_COLS;
        now = then;
        turn ^= 1;
    }
    if (ragged) bf16_copy(c, ldc, sums, BF16_COLS, rows, cols);
}

/* Part of the contraction, `pieces`, whose B begins at the area's first column, for all of an area. */
static void bf16_block(const l4j_tile_kernel *kernel, const bf16_product *p, const l4j_tile_piece *pieces, int count,
                       bool first, const gemm_area *area) {
    const float *start = first ? p->start : p->c;
    int64_t stride = first ? p->start_stride : p->ldc, last = l4j_min64(area->i1 * BF16_COLS, p->m);
    for (int64_t i = area->i0 * BF16_COLS; i < last; i += BF16_GROUP) {
        int rows = (int)l4j_min64(BF16_GROUP, last - i);
        for (int64_t n = area->n0; n < area->n1; n += BF16_COLS) {
            l4j_tile_piece at[2];
            for (int q = 0; q < count; q++) {
                at[q] = pieces[q];
                at[q].a += i / L4J_TILE_ROWS * pieces[q].a_panel;
                at[q].b += (n - area->n0) / L4J_TILE_ROWS * pieces[q].b_panel;
            }
            bf16_strip(kernel, at, count, n + BF16_COLS >= area->n1, rows, (int)l4j_min64(BF16_COLS, area->n1 - n),
                       start ? start + i * stride + n : NULL, stride, p->c + i * p->ldc + n, p->ldc);
        }
    }
}

static void bf16_area(const bf16_team *team, const bf16_product *p, const gemm_area *area) {
    bf16_cursor at = {0};
    l4j_tile_piece all[GEMM_SEGMENTS], part[2];
    for (int s = 0; s < p->segments; s++) {
        const bf16_segment *segment = &p->segment[s];
        int64_t panel = bf16_panel(segment->k);
        all[s] = (l4j_tile_piece){.a = segment->a, .a_panel = segment->a_panel, .tiles = l4j_tiles(segment->k)};
        if (segment->b) {
            all[s].b = segment->b + area->n0 / L4J_TILE_ROWS * panel;
            all[s].b_panel = panel;
        }
    }
    for (bool first = true;; first = false) {
        bf16_cursor from = at;
        int count = bf16_next(all, p->segments, BF16_DEPTH, &at, part);
        if (count == 0) break;
        uint16_t *own = team->own;
        for (int q = 0; q < count; q++) {
            const bf16_segment *segment = &p->segment[from.piece + q];
            if (segment->b) continue;
            int64_t k = q == 0 ? from.tile * L4J_TILE_STEPS : 0;
            int64_t steps = l4j_min64(part[q].tiles * L4J_TILE_STEPS, segment->k - k);
            part[q].b = own;
            part[q].b_panel = bf16_panel(steps);
            bf16_pack_b(own, part[q].b_panel, team->kernel->quads, &segment->source, k, steps, area->n0,
                        area->n1 - area->n0);
            own += bf16_panels(area->n1 - area->n0) * part[q].b_panel;
        }
        unsigned callers = bf16_enter(team->kernel);
        bf16_block(team->kernel, p, part, count, first, area);
        bf16_leave(team->kernel, callers);
    }
}

/* Groups of rows, one after the other, where B lies in tiles; else all rows, or parts of them where columns are few. */
static gemm_areas bf16_areas(bf16_team *team, const bf16_product *p) {
    bool packed = false;
    for (int s = 0; s < p->segments; s++) packed |= !p->segment[s].b;
    int64_t panels = (p->m + BF16_COLS - 1) / BF16_COLS, columns = (p->n + BF16_COLS - 1) / BF16_COLS;
    int64_t wanted = team->shared.threads == 1 ? 1 : (4 * team->shared.threads + columns - 1) / columns;
    if (!packed) wanted = l4j_max64(wanted, (p->m + BF16_GROUP - 1) / BF16_GROUP);
    return (gemm_areas){.n = p->n,
                        .panels = panels,
                        .unit = BF16_COLS,
                        .units = columns,
                        .groups = l4j_max64(1, l4j_min64(wanted, panels)),
                        .most = packed ? BF16_CLAIM / BF16_COLS : columns,
                        .taken = gemm_begin(&team->shared)};
}

void bf16_run(bf16_team *team, const bf16_product *p) {
    if (p->m == 0 || p->n == 0) return;
    gemm_areas areas = bf16_areas(team, p);
    gemm_area area;
    while (gemm_next_area(&team->shared, &areas, &area)) bf16_area(team, p, &area);
}
