/*
 * The loops around the tile kernels. Rows go in groups, and the contraction in stretches so long that a group's part of A stays in
 * L2: all threads finish one stretch for all columns before the next, so that memory is asked for B once a group, and C waits there
 * between stretches, which does not change bits. Threads claim areas of a stretch; operands B that do not lie in tiles are packed by
 * whoever claimed their columns. While a pair of panels of B passes the rows, the next pair is fetched, and the next tiles of C.
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

/* The next `most` tiles of a contraction: of one piece, and of the following one where either is short. 0 at the end. */
static int bf16_next(const l4j_tile_piece *pieces, int count, int64_t most, bf16_cursor *at, l4j_tile_piece next[2]) {
    int taken = 0;
    while (taken < 2 && at->piece < count) {
        l4j_tile_piece p = pieces[at->piece];
        int64_t left = p.tiles - at->tile, tiles = l4j_min64(most, left);
        if (taken == 1 && next[0].tiles + tiles > most + most / 4) break;
        p.a += at->tile * L4J_TILE;
        if (p.b) p.b += at->tile * L4J_TILE;
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

/* Asks for a tile of C that is stored next: it comes from far away, and its rows from as many pages. */
static inline void bf16_fetch_c(const float *c, int64_t ldc, int rows) {
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1, 2);
        __builtin_prefetch(c + i * ldc + L4J_TILE_ROWS, 1, 2);
    }
}

/* One pass over a few tiles of the contraction for all rows of a strip: `ahead` leads to the B of the pass that follows, `below` more
   rows are in C; -1 where C is at hand. */
static void bf16_pass(const l4j_tile_kernel *kernel, const l4j_tile_piece *piece, int count, int64_t ahead, int rows,
                      int below, int panels, const float *start, int64_t start_stride, float *c, int64_t ldc) {
    for (int i = 0; i < rows; i += BF16_COLS) {
        l4j_tile_piece at[2];
        for (int q = 0; q < count; q++) {
            at[q] = piece[q];
            at[q].a += i / L4J_TILE_ROWS * piece[q].a_panel;
        }
        at[0].ahead = i == 0 ? ahead : 0;
        if (below >= 0)
            bf16_fetch_c(c + (i + BF16_COLS) * ldc, ldc, (int)l4j_min64(BF16_COLS, rows + below - i - BF16_COLS));
        kernel->run((int)l4j_min64(BF16_COLS, rows - i), panels, at, count, start ? start + i * start_stride : NULL,
                    start_stride, c + i * ldc, ldc);
    }
}

/* A strip of C: up to BF16_STRIP rows and BF16_COLS columns; `below` more rows follow. Between passes its sums wait on the stack, side
   by side. */
static void bf16_strip(const l4j_tile_kernel *kernel, const l4j_tile_piece *pieces, int count, bool last, int rows,
                       int below, int cols, const float *start, int64_t start_stride, float *c, int64_t ldc) {
    float sums[BF16_STRIP * BF16_COLS] __attribute__((aligned(64)));
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
    int turn = 0, now = bf16_next(pieces, count, kernel->pass, &at, pass[0]);
    while (now > 0) {
        const l4j_tile_piece *piece = pass[turn], *next = pass[turn ^ 1];
        int then = bf16_next(pieces, count, kernel->pass, &at, pass[turn ^ 1]);
        int64_t ahead = then ? next->b - piece->b : last ? 0 : pieces->b + 2 * pieces->b_panel - piece->b;
        bool end = !then && !ragged;
        bf16_pass(kernel, piece, now, ahead, height, end ? below : -1, panels, start, start_stride, end ? c : sums,
                  end ? ldc : BF16_COLS);
        start = sums;
        start_stride = BF16_COLS;
        now = then;
        turn ^= 1;
    }
    if (ragged) bf16_copy(c, ldc, sums, BF16_COLS, rows, cols);
}

/* A stretch of the contraction: up to two pieces, whose A begins at row 0. */
typedef struct {
    bf16_cursor from;
    int count;
    l4j_tile_piece piece[2];
} bf16_stretch;

/* A stretch for all of an area, whose B begins at the area's first column. */
static void bf16_block(const l4j_tile_kernel *kernel, const bf16_product *p, const bf16_stretch *s,
                       const gemm_area *area) {
    bool first = s->from.piece == 0 && s->from.tile == 0;
    const float *start = first ? p->start : p->c;
    int64_t stride = first ? p->start_stride : p->ldc, last = l4j_min64(area->i1 * BF16_COLS, p->m);
    for (int64_t n = area->n0; n < area->n1; n += BF16_COLS) {
        for (int64_t i = area->i0 * BF16_COLS; i < last; i += BF16_STRIP) {
            int rows = (int)l4j_min64(BF16_STRIP, last - i);
            l4j_tile_piece at[2];
            for (int q = 0; q < s->count; q++) {
                at[q] = s->piece[q];
                at[q].a += i / L4J_TILE_ROWS * at[q].a_panel;
                at[q].b += (n - area->n0) / L4J_TILE_ROWS * at[q].b_panel;
            }
            bool ends = i + BF16_STRIP < last || n + BF16_COLS >= area->n1; /* what follows is no new strip of B */
            bf16_strip(kernel, at, s->count, ends, rows, (int)(last - i - rows),
                       (int)l4j_min64(BF16_COLS, area->n1 - n), start ? start + i * stride + n : NULL, stride,
                       p->c + i * p->ldc + n, p->ldc);
        }
    }
}

static void bf16_area(const bf16_team *team, const bf16_product *p, bf16_stretch s, const gemm_area *area) {
    uint16_t *own = team->own;
    for (int q = 0; q < s.count; q++) {
        const bf16_segment *segment = &p->segment[s.from.piece + q];
        l4j_tile_piece *piece = &s.piece[q];
        int64_t tile = q == 0 ? s.from.tile : 0, panel = bf16_panel(segment->k);
        if (segment->b) {
            piece->b = segment->b + area->n0 / L4J_TILE_ROWS * panel + tile * L4J_TILE;
            piece->b_panel = panel;
            continue;
        }
        int64_t k = tile * L4J_TILE_STEPS, steps = l4j_min64(piece->tiles * L4J_TILE_STEPS, segment->k - k);
        piece->b = own;
        piece->b_panel = bf16_panel(steps);
        bf16_pack_b(own, piece->b_panel, team->kernel->quads, &segment->source, k, steps, area->n0,
                    area->n1 - area->n0);
        own += bf16_panels(area->n1 - area->n0) * piece->b_panel;
    }
    unsigned callers = bf16_enter(team->kernel);
    bf16_block(team->kernel, p, &s, area);
    bf16_leave(team->kernel, callers);
}

/* All rows of the group where columns are enough for the threads, otherwise parts of them. */
static gemm_areas bf16_areas(bf16_team *team, const bf16_product *p) {
    bool packed = false;
    for (int s = 0; s < p->segments; s++) packed |= !p->segment[s].b;
    int64_t panels = (p->m + BF16_COLS - 1) / BF16_COLS, columns = (p->n + BF16_COLS - 1) / BF16_COLS;
    int64_t wanted = team->shared.threads == 1 ? 1 : (4 * team->shared.threads + columns - 1) / columns;
    return (gemm_areas){.n = p->n,
                        .panels = panels,
                        .unit = BF16_COLS,
                        .units = columns,
                        .groups = l4j_max64(1, l4j_min64(wanted, panels)),
                        .most = packed ? BF16_CLAIM / BF16_COLS : columns,
                        .taken = gemm_begin(&team->shared)};
}

/* Tiles of a stretch: even ones. */
static int64_t bf16_depth(const bf16_product *p) {
    int64_t all = 1;
    for (int s = 0; s < p->segments; s++) all = l4j_max64(all, l4j_tiles(p->segment[s].k));
    int64_t stretches = (all + BF16_DEPTH - 1) / BF16_DEPTH;
    return (all + stretches - 1) / stretches;
}

/* A product of up to BF16_GROUP rows. */
static void bf16_group(bf16_team *team, const bf16_product *p) {
    bf16_cursor at = {0};
    l4j_tile_piece all[GEMM_SEGMENTS];
    for (int s = 0; s < p->segments; s++) {
        all[s] = (l4j_tile_piece){
            .a = p->segment[s].a, .a_panel = p->segment[s].a_panel, .tiles = l4j_tiles(p->segment[s].k)};
    }
    for (int64_t depth = bf16_depth(p);;) {
        bf16_stretch stretch = {.from = at};
        stretch.count = bf16_next(all, p->segments, depth, &at, stretch.piece);
        if (stretch.count == 0) break;
        if (stretch.from.piece + stretch.from.tile > 0) l4j_pool_barrier(team->shared.pool); /* C is continued */
        gemm_areas areas = bf16_areas(team, p);
        gemm_area area;
        while (gemm_next_area(&team->shared, &areas, &area)) bf16_area(team, p, stretch, &area);
    }
}

void bf16_run(bf16_team *team, const bf16_product *p) {
    for (int64_t m = 0; m < p->m && p->n > 0; m += BF16_GROUP) {
        bf16_product group = *p;
        group.m = l4j_min64(BF16_GROUP, p->m - m);
        if (p->start) group.start += m * p->start_stride;
        group.c += m * p->ldc;
        for (int s = 0; s < p->segments; s++) group.segment[s].a += m / L4J_TILE_ROWS * p->segment[s].a_panel;
        bf16_group(team, &group);
    }
}
