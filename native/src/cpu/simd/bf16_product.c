/*
 * The loops around the tile kernels. Threads share C out in a fixed grid. One pass takes a few tiles of the contraction: their panels of
 * B stay in L1 while the rows of A go by in L2, and C waits in memory between passes, which does not change bits. Operands B that do
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

/* Threads in the direction of rows, such that the busiest thread has least to do, and then reads least. */
static int bf16_grid_rows(int threads, int64_t row_units, int64_t col_units) {
    int best = 1;
    int64_t least = INT64_MAX, least_read = INT64_MAX;
    for (int rows = 1; rows <= threads; rows++) {
        if (threads % rows) continue;
        int columns = threads / rows;
        int64_t m = (row_units + rows - 1) / rows, n = (col_units + columns - 1) / columns;
        if (m * n > least || (m * n == least && m + n >= least_read)) continue;
        least = m * n;
        least_read = m + n;
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

/* The next pass over the contraction: tiles of one segment, and all of the next one where that is short. 0 at the end. */
typedef struct {
    int segment;
    int64_t tile;
} bf16_cursor;

static int bf16_next(const bf16_product *p, const bf16_stretch *stretch, bf16_cursor *at, l4j_tile_piece piece[2]) {
    int count = 0;
    while (count < 2 && at->segment < p->segments) {
        const bf16_segment *s = &p->segment[at->segment];
        int64_t all = l4j_tiles(s->k), tiles = l4j_min64(BF16_KC, all - at->tile);
        if (count == 1 && (at->tile > 0 || tiles + piece[0].tiles > BF16_KC + BF16_KC / 4)) break;
        piece[count++] = (l4j_tile_piece){.a = s->a + at->tile * L4J_TILE,
                                          .b = stretch->b[at->segment] + at->tile * L4J_TILE,
                                          .a_panel = s->a_panel,
                                          .b_panel = all * L4J_TILE,
                                          .tiles = tiles};
        at->tile += tiles;
        if (at->tile < all) break;
        at->segment++;
        at->tile = 0;
    }
    return count;
}

/* Rows [i0, i1) and columns [j0, j1) of a stretch; i0 and j0 are multiples of 32. */
static void bf16_block(const l4j_tile_kernel *kernel, const bf16_product *p, const bf16_stretch *stretch,
                       const l4j_tile_piece *pieces, int count, bool first, int64_t i0, int64_t i1, int64_t j0,
                       int64_t j1) {
    const float *start = first ? p->start : p->c;
    int64_t stride = first ? p->start_stride : p->ldc;
    for (int64_t j = j0; j < j1; j += BF16_COLS) {
        int cols = (int)l4j_min64(BF16_COLS, j1 - j);
        int64_t n = stretch->n + j;
        for (int64_t i = i0; i < i1; i += BF16_COLS) {
            l4j_tile_piece at[2];
            for (int q = 0; q < count; q++) {
                at[q] = pieces[q];
                at[q].a += i / L4J_TILE_ROWS * pieces[q].a_panel;
                at[q].b += j / L4J_TILE_ROWS * pieces[q].b_panel;
            }
            bf16_tiles(kernel, 0, (int)l4j_min64(BF16_COLS, i1 - i), cols, at, count,
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
        int64_t row_units = (p->m + BF16_COLS - 1) / BF16_COLS, col_units = (stretch.cols + BF16_COLS - 1) / BF16_COLS;
        int grid = bf16_grid_rows(team->threads, row_units, col_units), columns = team->threads / grid;
        int64_t i0, i1, j0, j1;
        l4j_partition(p->m, BF16_COLS, team->thread / columns, grid, &i0, &i1);
        l4j_partition(stretch.cols, BF16_COLS, team->thread % columns, columns, &j0, &j1);
        unsigned callers = bf16_enter(team->kernel);
        bf16_cursor at = {0};
        l4j_tile_piece piece[2];
        int count;
        for (bool first = true; (count = bf16_next(p, &stretch, &at, piece)) > 0; first = false)
            bf16_block(team->kernel, p, &stretch, piece, count, first, i0, i1, j0, j1);
        bf16_leave(team->kernel, callers);
    }
}
