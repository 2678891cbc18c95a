/* Quantized base weights: their parts checked, copied where the weight owns them, and every value decoded once to see that it is finite. */
#include "cuda/backend.h"
#include "weight.h"

#include "quant/int4.h"

#include <stdlib.h>
#include <string.h>

enum { CHECK_COLUMNS = 256 };

static void check_finite(void *context, int thread, int threads) {
    l4j_finite_check *c = context;
    const l4j_weight *w = c->weight;
    int64_t begin, end;
    l4j_partition(w->rows, 1, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n++) {
        for (int64_t k = 0; k < w->cols; k += CHECK_COLUMNS) {
            float values[CHECK_COLUMNS];
            int64_t count = l4j_min64(CHECK_COLUMNS, w->cols - k);
            w->device->kernels->decode_row(w, n, k, count, values);
            int64_t at = l4j_first_nonfinite(values, L4J_F32, c->f32_limit, count);
            if (at < 0) continue;
            l4j_found_nonfinite(c, n * w->cols + k + at);
            return;
        }
    }
}

/* ---- panels: the bytes of sixteen rows side by side ---- */

static int64_t panel_rows(int64_t rows) { return (rows + L4J_PANEL - 1) / L4J_PANEL * L4J_PANEL; }

/* Bytes of a row of a weight that may lie in panels, for the tiers that read them; otherwise 0. Units of 32 columns must be whole, and have
   their scales to themselves. */
static int64_t panel_bytes(const l4j_weight *w) {
    const l4j_quant *q = &w->quant;
    int32_t isa = w->device->kernels->isa;
    if (isa != L4J_ISA_AVX2 && isa != L4J_ISA_AVX512) return 0;
    if (l4j_is_gguf(q->scheme)) return q->row_bytes;
    if (q->cols % 32 || q->block % 32 || q->cols % q->block || q->group_index) {
        return q->scheme == L4J_SCHEME_FP8_E4M3 && q->cols % 32 == 0 ? q->cols : 0; /* its last block may be short */
    }
    bool pairs = q->scheme == L4J_SCHEME_NF4 || q->scheme == L4J_SCHEME_FP4 || q->zeros;
    return pairs ? q->cols / 2 : q->cols;
}

typedef struct {
    const uint8_t *from;
    uint8_t *panels;
    int64_t rows, row_bytes;
} panel_task;

static void to_panels(void *context, int thread, int threads) {
    enum { BYTES = 64 }; /* of each row at a time: its lines are used whole while they are in the cache */
    const panel_task *t = context;
    int64_t begin, end;
    l4j_partition(t->rows, L4J_PANEL, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n += L4J_PANEL) {
        const uint8_t *rows = t->from + n * t->row_bytes;
        uint8_t *out = t->panels + n * t->row_bytes;
        int64_t live = l4j_min64(L4J_PANEL, t->rows - n);
        if (live < L4J_PANEL) memset(out, 0, (size_t)(L4J_PANEL * t->row_bytes));
        for (int64_t from = 0; from < t->row_bytes; from += BYTES) {
            int64_t to = l4j_min64(from + BYTES, t->row_bytes);
            for (int64_t i = 0; i < live; i++) {
                for (int64_t j = from; j < to; j++) out[j * L4J_PANEL + i] = rows[i * t->row_bytes + j];
            }
        }
    }
}

/* ---- copies of the parts ---- */
typedef struct {
    const l4j_tensor *from;
    l4j_tensor *to;
    int32_t count, skipped;
} copy_task;

static int64_t part_bytes(const l4j_tensor *t) {
    int64_t bytes = l4j_dtype_bytes(t->dtype);
    for (int i = 0; i < t->ndim; i++) bytes *= t->shape[i];
    return bytes;
}

static void copy(void *context, int thread, int threads) {
    copy_task *task = context;
    for (int32_t i = 0; i < task->count; i++) {
        int64_t begin, end;
        if (i == task->skipped) continue;
        l4j_partition(part_bytes(&task->from[i]), 64, thread, threads, &begin, &end);
        memcpy((char *)task->to[i].data + begin, (const char *)task->from[i].data + begin, (size_t)(end - begin));
    }
}

static l4j_status open_parts(l4j_weight *w, const l4j_weight_options *options, const l4j_tensor *values,
                             l4j_error *error) {
    l4j_part_list list = {options->part_count, options->part_roles, values};
    return l4j_quant_open("weight_create", w->scheme, w->rows, w->cols, list, false, &w->quant, error);
}

/* The weight's own parts; the values in panels where they may lie so. */
static l4j_status copy_parts(l4j_weight *w, l4j_queue *queue, const l4j_weight_options *options, l4j_error *error) {
    int64_t row_bytes = panel_bytes(w), size = 0, values = 0;
    l4j_tensor parts[L4J_ROLES];
    for (int pass = 0; pass < 2; pass++) { /* once for the size, once for the pieces */
        char *at = w->owned;
        for (int32_t i = 0; i < options->part_count; i++) {
            parts[i] = options->part_values[i];
            parts[i].data = at ? at + size : NULL;
            int64_t bytes = part_bytes(&parts[i]);
            if (options->part_roles[i] == L4J_ROLE_VALUES) {
                values = i;
                if (row_bytes) bytes = panel_rows(w->rows) * row_bytes;
            }
            size += (bytes + 63) / 64 * 64;
        }
        if (pass == 0) L4J_TRY(l4j_weight_memory(w, size, error));
        size = 0;
    }
    copy_task task = {options->part_values, parts, options->part_count, row_bytes ? (int32_t)values : -1};
    l4j_run_or_alone(queue, copy, &task);
    if (row_bytes) {
        panel_task panels = {options->part_values[values].data, parts[values].data, w->rows, row_bytes};
        l4j_run_or_alone(queue, to_panels, &panels);
    }
    L4J_TRY(open_parts(w, options, parts, error));
    w->quant.panels = row_bytes > 0;
    if (row_bytes) w->quant.row_bytes = row_bytes;
    return L4J_OK;
}

/* ---- GPTQ and AWQ, turned round: their words run across the rows that operations read ---- */
typedef struct {
    const l4j_quant *from;
    uint8_t *codes;
    float *scales;
    int8_t *zeros;
    int64_t row_bytes, groups;
    bool panels;
} turn_task;

/* Byte j of the codes of row n. */
static uint8_t *turn_place(const turn_task *t, int64_t n, int64_t j) {
    if (!t->panels) return t->codes + n * t->row_bytes + j;
    return t->codes + (n / L4J_PANEL * t->row_bytes + j) * L4J_PANEL + n % L4J_PANEL;
}

static float read_scale(const l4j_quant *q, int64_t index) {
    if (q->scale_dtype == L4J_F32) return ((const float *)q->scales)[index];
    uint16_t h = ((const uint16_t *)q->scales)[index];
    return q->scale_dtype == L4J_BF16 ? l4j_bf16_to_f32(h) : l4j_f16_to_f32(h);
}

/* Eight rows at a time: they share words, or lines. */
static void turn(void *context, int thread, int threads) {
    turn_task *task = context;
    const l4j_quant *q = task->from;
    int64_t begin, end;
    l4j_partition(q->rows, 8, thread, threads, &begin, &end);
    for (int64_t n0 = begin; n0 < end; n0 += 8) {
        int64_t n1 = l4j_min64(n0 + 8, end);
        for (int64_t k = 0; k < q->cols; k += 2) {
            for (int64_t n = n0; n < n1; n++) {
                int low = k + 1 < q->cols ? int4_code(q, n, k + 1) : 0;
                *turn_place(task, n, k / 2) = (uint8_t)(int4_code(q, n, k) << 4 | low);
            }
        }
        for (int64_t g = 0; g < task->groups; g++) {
            for (int64_t n = n0; n < n1; n++) {
                task->scales[n * task->groups + g] = read_scale(q, g * q->scale_stride + n);
                task->zeros[n * task->groups + g] = (int8_t)int4_zero(q, n, g);
            }
        }
    }
}

static l4j_status turn_int4(l4j_weight *w, l4j_queue *queue, int64_t groups, l4j_error *error) {
    l4j_quant from = w->quant;
    int64_t row_bytes = (w->cols + 1) / 2, index_bytes = from.group_index ? w->cols * 4 : 0;
    l4j_arena arena = {0}; /* once for the size, once for the pieces */
    turn_task task = {.from = &from, .row_bytes = row_bytes, .groups = groups, .panels = panel_bytes(w) > 0};
    int64_t codes = (task.panels ? panel_rows(w->rows) : w->rows) * row_bytes;
    int32_t *index = NULL;
    for (int pass = 0; pass < 2; pass++) {
        task.codes = l4j_take(&arena, (size_t)codes);
        task.scales = l4j_take(&arena, (size_t)(w->rows * groups) * sizeof(float));
        task.zeros = l4j_take(&arena, (size_t)(w->rows * groups));
        index = l4j_take(&arena, (size_t)index_bytes);
        if (pass == 0) L4J_TRY(l4j_weight_memory(w, (int64_t)arena.used, error));
        arena = (l4j_arena){.base = w->owned};
    }
    if (task.panels && w->rows % L4J_PANEL) /* rows past the end */
        memset(task.codes + codes - L4J_PANEL * row_bytes, 0, (size_t)(L4J_PANEL * row_bytes));
    l4j_run_or_alone(queue, turn, &task);
    if (index_bytes) memcpy(index, from.group_index, (size_t)index_bytes);
    w->quant = (l4j_quant){.scheme = L4J_INT4_ROWS,
                           .rows = w->rows,
                           .cols = w->cols,
                           .values = task.codes,
                           .row_bytes = row_bytes,
                           .panels = task.panels,
                           .scales = task.scales,
                           .scale_dtype = L4J_F32,
                           .scale_stride = groups,
                           .block = from.block,
                           .row_zeros = task.zeros,
                           .group_index = index_bytes ? index : NULL};
    return L4J_OK;
}

/* The GPU has a copy of its own in any case. */
static l4j_status to_gpu(l4j_weight *w, const l4j_weight_options *options, l4j_error *error) {
    if (options->mode != L4J_WEIGHT_PACK) {
        return l4j_fail(
            error, L4J_ENOTSUP,
            "weight_create: mode is L4J_WEIGHT_BORROW and the scheme is %s; expected L4J_WEIGHT_PACK with the "
            "parts in the host's memory: a GPU reads quantized weights in a layout of its own",
            l4j_format_name(options->scheme));
    }
    L4J_TRY(open_parts(w, options, options->part_values, error));
    int64_t first = -1;
    bool finite = !(options->flags & L4J_WEIGHT_ALLOW_NONFINITE);
    L4J_TRY(w->device->gpu->weight_create_coded(w, options, finite, &first, error));
    l4j_finite_check check = {w, L4J_INF_IN_F32, first < 0 ? INT64_MAX : first};
    return l4j_finite_result(&check, error);
}

l4j_status l4j_weight_quantized(l4j_weight *w, l4j_queue *queue, const l4j_weight_options *options, l4j_error *error) {
    w->layout = L4J_LAYOUT_CODES;
    if (w->device->gpu) return to_gpu(w, options, error);
    L4J_TRY(open_parts(w, options, options->part_values, error));
    if (!(options->flags & L4J_WEIGHT_ALLOW_NONFINITE)) {
        l4j_finite_check check = {w, L4J_INF_IN_F32, INT64_MAX};
        l4j_run_or_alone(queue, check_finite, &check);
        L4J_TRY(l4j_finite_result(&check, error));
    }
    if (options->mode == L4J_WEIGHT_BORROW) return L4J_OK;
    for (int32_t i = 0; i < options->part_count && w->quant.zeros; i++) {
        if (options->part_roles[i] != L4J_ROLE_SCALES) continue;
        return turn_int4(w, queue, options->part_values[i].shape[0], error);
    }
    return copy_parts(w, queue, options, error);
}
