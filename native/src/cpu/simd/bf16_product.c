/*
 * The loops around the tile kernels. Threads share C out in a fixed grid. Each takes a group of rows, whose part of A stays in L2
 * while columns stream past it: for each pair of panels of B a few tiles of the contraction at once, which stay in L1 while the rows
 * go by, the following ones being fetched meanwhile. Sums wait between these passes, which does not change bits. Operands B that do
 * not lie in tiles are packed by all threads together, as many columns at once as the buffer holds.
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

/* The most of `n` rows or columns that one of `threads` has. */
static int64_t bf16_share(int64_t n, int threads) {
    int64_t units = (n + BF16_COLS - 1) / BF16_COLS;
    return (units + threads - 1) / threads * BF16_COLS;
}

/* Threads in the direction of rows, such that the busiest thread has least to do, and then reads least: its rows, and its columns for
   every group of rows. */
static int bf16_grid_rows(int threads, int64_t m, int64_t n) {
    int best = 1;
    int64_t least = INT64_MAX, least_read = INT64_MAX;
    for (int rows = 1; rows <= threads; rows++) {
        if (threads % rows) continue;
        int64_t high = bf16_share(m, rows), wide = bf16_share(n, threads / rows);
        int64_t read = high + wide * ((high + BF16_GROUP - 1) / BF16_GROUP);
        if (high * wide > least || (high * wide == least && read >= least_read)) continue;
        least = high * wide;
        least_read = read;
        best = rows;
    }
    return best;
}

/* The columns [n, n + cols) of every segment's B. */
typedef struct {
    int64_t n, cols;
    const uint16_t *b[GEMM_SEGMENTS]; /* its first panel */
} bf16_stretch;

/* Packs this thread's share where B does not lie in tiles. */
static bool bf16_pack_stretch(const bf16_team *team, const bf16_product *p, bf16_stretch *stretch) {
    uint16_t *to = team->b[team->turn];
    bool packed = false;
    for (int s = 0; s < p->segments; s++) {
        const bf16_segment *segment = &p->segment[s];
        int64_t panel = bf16_panel(segment->k), begin, end;
        if (segment->b) {
            stretch->b[s] = segment->b + stretch->n / L4J_TILE_ROWS * panel;
            continue;
        }
        l4j_partition(stretch->cols, BF16_COLS, team->thread, team->threads, &begin, &end);
        if (begin < end) {
            bf16_pack_b(to + begin / L4J_TILE_ROWS * panel, panel, team->kernel->quads, &segment->source, 0, segment->k,
                        stretch->n + begin, end - begin);
        }
        stretch->b[s] = to;
        to += bf16_panels(stretch->cols) * panel;
        packed = true;
    }
    return packed;
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

/* Rows [i0, i1) and columns [j0, j1) of a stretch; i0 and j0 are multiples of 32. */
static void bf16_block(const l4j_tile_kernel *kernel, const bf16_product *p, const bf16_stretch *stretch,
                       const l4j_tile_piece *pieces, int count, bool first, int64_t i0, int64_t i1, int64_t j0,
                       int64_t j1) {
    const float *start = first ? p->start : p->c;
    int64_t stride = first ? p->start_stride : p->ldc;
    for (int64_t i = i0; i < i1; i += BF16_GROUP) {
        int rows = (int)l4j_min64(BF16_GROUP, i1 - i);
        for (int64_t j = j0; j < j1; j += BF16_COLS) {
            int64_t n = stretch->n + j;
            l4j_tile_piece at[2];
            for (int q = 0; q < count; q++) {
                at[q] = pieces[q];
                at[q].a += i / L4J_TILE_ROWS * pieces[q].a_panel;
                at[q].b += j / L4J_TILE_ROWS * pieces[q].b_panel;
            }
            bf16_strip(kernel, at, count, j + BF16_COLS >= j1, rows, (int)l4j_min64(BF16_COLS, j1 - j),
                       start ? start + i * stride + n : NULL, stride, p->c + i * p->ldc + n, p->ldc);
        }
    }
}

void bf16_run(bf16_team *team, const bf16_product *p) {
    if (p->m == 0 || p->n == 0) return;
    int64_t packed = 0;
    for (int s = 0; s < p->segments; s++) packed += p->segment[s].b ? 0 : l4j_tiles(p->segment[s].k) * L4J_TILE_STEPS;
    int64_t width = packed ? bf16_width(packed, p->n, team->threads) : p->n;
    for (int64_t n = 0; n < p->n; n += width) {
        bf16_stretch stretch = {.n = n, .cols = l4j_min64(width, p->n - n)};
        if (bf16_pack_stretch(team, p, &stretch)) {
            l4j_pool_barrier(team->pool);
            team->turn ^= 1;
        }
        l4j_tile_piece all[GEMM_SEGMENTS], part[2];
        for (int s = 0; s < p->segments; s++) {
            int64_t tiles = l4j_tiles(p->segment[s].k);
            all[s] = (l4j_tile_piece){.a = p->segment[s].a,
                                      .b = stretch.b[s],
                                      .a_panel = p->segment[s].a_panel,
                                      .b_panel = tiles * L4J_TILE,
                                      .tiles = tiles};
        }
        int grid = bf16_grid_rows(team->threads, p->m, stretch.cols), columns = team->threads / grid, count;
        int64_t i0, i1, j0, j1;
        l4j_partition(p->m, BF16_COLS, team->thread / columns, grid, &i0, &i1);
        l4j_partition(stretch.cols, BF16_COLS, team->thread % columns, columns, &j0, &j1);
        unsigned callers = bf16_enter(team->kernel);
        bf16_cursor at = {0};
        for (bool first = true; (count = bf16_next(all, p->segments, BF16_DEPTH, &at, part)) > 0; first = false)
            bf16_block(team->kernel, p, &stretch, part, count, first, i0, i1, j0, j1);
        bf16_leave(team->kernel, callers);
    }
}
