/* Quantized base weights: their parts checked, copied where the weight owns them, and every value decoded once to see that it is finite. */
#include "weight.h"

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
            int64_t at = l4j_first_nonfinite(values, L4J_F32, count);
            if (at < 0) continue;
            l4j_found_nonfinite(c, n * w->cols + k + at);
            return;
        }
    }
}

/* ---- copies of the parts ---- */
typedef struct {
    const l4j_tensor *from;
    l4j_tensor *to;
    int32_t count;
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
        l4j_partition(part_bytes(&task->from[i]), 64, thread, threads, &begin, &end);
        memcpy((char *)task->to[i].data + begin, (const char *)task->from[i].data + begin, (size_t)(end - begin));
    }
}

static l4j_status open_parts(l4j_weight *w, const l4j_weight_options *options, const l4j_tensor *values,
                             l4j_error *error) {
    l4j_part_list list = {options->part_count, options->part_roles, values};
    return l4j_quant_open("weight_create", w->scheme, w->rows, w->cols, list, false, &w->quant, error);
}

static l4j_status copy_parts(l4j_weight *w, l4j_queue *queue, const l4j_weight_options *options, l4j_error *error) {
    int64_t size = 0;
    for (int32_t i = 0; i < options->part_count; i++) size += (part_bytes(&options->part_values[i]) + 63) / 64 * 64;
    L4J_TRY(l4j_weight_memory(w, size, error));
    l4j_tensor parts[L4J_ROLES];
    char *at = w->owned;
    for (int32_t i = 0; i < options->part_count; i++) {
        parts[i] = options->part_values[i];
        parts[i].data = at;
        at += (part_bytes(&parts[i]) + 63) / 64 * 64;
    }
    copy_task task = {options->part_values, parts, options->part_count};
    l4j_run_or_alone(queue, copy, &task);
    return open_parts(w, options, parts, error);
}

l4j_status l4j_weight_quantized(l4j_weight *w, l4j_queue *queue, const l4j_weight_options *options, l4j_error *error) {
    w->layout = L4J_LAYOUT_CODES;
    L4J_TRY(open_parts(w, options, options->part_values, error));
    if (!(options->flags & L4J_WEIGHT_ALLOW_NONFINITE)) {
        l4j_finite_check check = {w, INT64_MAX};
        l4j_run_or_alone(queue, check_finite, &check);
        L4J_TRY(l4j_finite_result(&check, error));
    }
    return options->mode == L4J_WEIGHT_PACK ? copy_parts(w, queue, options, error) : L4J_OK;
}
