/* Base weights: checked once, then read by any number of operations. */
#include "weight.h"
#include "cuda/backend.h"

#include "bf16.h"

#include <stdlib.h>
#include <string.h>

static int64_t element_bytes(int32_t dtype) { return dtype == L4J_F32 ? 4 : 2; }

/* ---- finiteness: the exponent is not all ones ---- */
int64_t l4j_first_nonfinite(const void *row, int32_t dtype, uint32_t f32_limit, int64_t n) {
    uint32_t found = 0;
    if (dtype == L4J_F32) {
        const uint32_t *v = row;
        for (int64_t i = 0; i < n; i++) found |= (v[i] & 0x7FFFFFFFu) >= f32_limit;
        for (int64_t i = 0; found && i < n; i++)
            if ((v[i] & 0x7FFFFFFFu) >= f32_limit) return i;
    } else {
        const uint16_t *v = row, mask = dtype == L4J_F16 ? 0x7C00 : 0x7F80;
        for (int64_t i = 0; i < n; i++) found |= (v[i] & mask) == mask;
        for (int64_t i = 0; found && i < n; i++)
            if ((v[i] & mask) == mask) return i;
    }
    return -1;
}

void l4j_found_nonfinite(l4j_finite_check *check, int64_t index) {
    int64_t old = atomic_load(&check->first);
    while (index < old && !atomic_compare_exchange_weak(&check->first, &old, index)) {
    }
}

l4j_status l4j_finite_result(const l4j_finite_check *check, l4j_error *error) {
    int64_t first = atomic_load(&check->first), cols = check->weight->cols;
    if (first == INT64_MAX) return L4J_OK;
    return l4j_fail(error, L4J_ENUMERIC, "weight_create: value [%lld, %lld] is NaN or Inf%s; expected finite weights",
                    (long long)(first / cols), (long long)(first % cols),
                    check->f32_limit == L4J_INF_IN_BF16 ? " in bf16" : "");
}

static void check_finite(void *context, int thread, int threads) {
    l4j_finite_check *c = context;
    const l4j_weight *w = c->weight;
    int64_t begin, end;
    l4j_partition(w->rows, 1, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n++) {
        const char *row = (const char *)w->data + n * w->row_stride * element_bytes(w->dtype);
        int64_t k = l4j_first_nonfinite(row, w->dtype, c->f32_limit, w->cols);
        if (k < 0) continue;
        l4j_found_nonfinite(c, n * w->cols + k);
        return;
    }
}

/* ---- packing: panels of 16 rows, interleaved by row ---- */
typedef struct {
    const l4j_weight *rows;
    void *panels;
} pack_task;

/* Columns are taken in blocks, so that the 16 rows' lines are used whole while they are in the cache. */
#define PACK(T)                                                                                    \
    for (int64_t p = begin; p < end; p++) {                                                        \
        int live = (int)l4j_min64(L4J_PANEL, w->rows - p * L4J_PANEL);                             \
        T *restrict out = (T *)task->panels + p * w->cols * L4J_PANEL;                             \
        const T *in = (const T *)w->data + p * L4J_PANEL * w->row_stride;                          \
        for (int64_t k0 = 0; k0 < w->cols; k0 += 32) {                                             \
            int64_t k1 = l4j_min64(k0 + 32, w->cols);                                              \
            for (int64_t k = k0; k < k1; k++) {                                                    \
                for (int i = 0; i < live; i++) out[k * L4J_PANEL + i] = in[i * w->row_stride + k]; \
                for (int i = live; i < L4J_PANEL; i++) out[k * L4J_PANEL + i] = 0;                 \
            }                                                                                      \
        }                                                                                          \
    }

static void pack(void *context, int thread, int threads) {
    pack_task *task = context;
    const l4j_weight *w = task->rows;
    int64_t begin, end;
    l4j_partition((w->rows + L4J_PANEL - 1) / L4J_PANEL, 1, thread, threads, &begin, &end);
    if (w->dtype == L4J_F32) {
        PACK(uint32_t)
    } else {
        PACK(uint16_t)
    }
}

/* ---- packing: tiles of bf16 ---- */

static float read_float(const l4j_weight *w, int64_t i) {
    if (w->dtype == L4J_F32) return ((const float *)w->data)[i];
    uint16_t h = ((const uint16_t *)w->data)[i];
    return w->dtype == L4J_BF16 ? l4j_bf16_to_f32(h) : l4j_f16_to_f32(h);
}

/* Whole panels, so that missing rows and columns become +0 too. */
static void pack_tiles(void *context, int thread, int threads) {
    pack_task *task = context;
    const l4j_weight *w = task->rows;
    bool quads = w->device->bf16_isa == L4J_ISA_AVX512_BF16;
    int64_t tiles = l4j_tiles(w->cols), begin, end;
    l4j_partition((w->rows + L4J_TILE_ROWS - 1) / L4J_TILE_ROWS, 1, thread, threads, &begin, &end);
    for (int64_t i = begin * tiles; i < end * tiles; i++) {
        uint16_t *tile = (uint16_t *)task->panels + i * L4J_TILE;
        int64_t n0 = i / tiles * L4J_TILE_ROWS, k0 = i % tiles * L4J_TILE_STEPS;
        for (int64_t lane = 0; lane < L4J_TILE_ROWS; lane++) {
            for (int64_t k = 0; k < L4J_TILE_STEPS; k++) {
                bool live = n0 + lane < w->rows && k0 + k < w->cols;
                tile[l4j_tile_index(quads, L4J_TILE_STEPS, lane, k)] =
                    live ? l4j_f32_to_bf16(read_float(w, (n0 + lane) * w->row_stride + k0 + k)) : 0;
            }
        }
    }
}

l4j_status l4j_weight_memory(l4j_weight *w, int64_t bytes, l4j_error *error) {
    int64_t size = bytes + 64;
    void *memory = l4j_cpu_allocate((size_t)size);
    if (!memory) return l4j_fail(error, L4J_ENOMEM, "weight_create: no memory for %lld bytes", (long long)size);
    memset((char *)memory + bytes, 0, 64);
    w->owned = memory;
    w->bytes_held = size;
    return L4J_OK;
}

/* Replaces the rows by a packed copy of `bytes`. */
static l4j_status to_packed(l4j_weight *w, l4j_queue *queue, l4j_task pack_rows, int64_t bytes, l4j_error *error) {
    L4J_TRY(l4j_weight_memory(w, bytes, error));
    pack_task task = {w, w->owned};
    l4j_run_or_alone(queue, pack_rows, &task);
    w->data = w->owned;
    w->row_stride = 0;
    return L4J_OK;
}

static l4j_status to_panels(l4j_weight *w, l4j_queue *queue, l4j_error *error) {
    int64_t panels = (w->rows + L4J_PANEL - 1) / L4J_PANEL;
    L4J_TRY(to_packed(w, queue, pack, panels * L4J_PANEL * w->cols * element_bytes(w->dtype), error));
    w->layout = L4J_LAYOUT_PANELS;
    return L4J_OK;
}

static l4j_status to_tiles(l4j_weight *w, l4j_queue *queue, l4j_error *error) {
    int64_t panels = (w->rows + L4J_TILE_ROWS - 1) / L4J_TILE_ROWS;
    L4J_TRY(to_packed(w, queue, pack_tiles, panels * l4j_tiles(w->cols) * L4J_TILE * 2, error));
    w->layout = w->device->bf16_isa == L4J_ISA_AVX512_BF16 ? L4J_LAYOUT_QUAD_TILES : L4J_LAYOUT_TILES;
    w->dtype = L4J_BF16;
    return L4J_OK;
}

static l4j_status check_options(const l4j_weight_options *o, l4j_error *error) {
    L4J_TRY(l4j_check_struct("weight_create", o->struct_size, sizeof *o, o->reserved, 4, error));
    if (o->scheme != L4J_SCHEME_DENSE && !l4j_format_name(o->scheme)) {
        return l4j_fail(error, L4J_ENOTSUP,
                        "weight_create: scheme %d is not supported; expected a L4J_SCHEME_... of lora4j.h", o->scheme);
    }
    if (o->mode != L4J_WEIGHT_BORROW && o->mode != L4J_WEIGHT_PACK) {
        return l4j_fail(error, L4J_EINVAL, "weight_create: mode is %d, expected L4J_WEIGHT_BORROW or L4J_WEIGHT_PACK",
                        o->mode);
    }
    if (o->compute != L4J_COMPUTE_F32 && (o->compute != L4J_COMPUTE_BF16 || o->mode != L4J_WEIGHT_PACK)) {
        return l4j_fail(
            error, L4J_EINVAL,
            "weight_create: compute is %d, expected L4J_COMPUTE_F32, or L4J_COMPUTE_BF16 with L4J_WEIGHT_PACK",
            o->compute);
    }
    if (o->compute == L4J_COMPUTE_BF16 && o->scheme != L4J_SCHEME_DENSE) {
        return l4j_fail(
            error, L4J_ENOTSUP,
            "weight_create: compute is L4J_COMPUTE_BF16 and the scheme is %s; expected a dense weight: create "
            "this one with L4J_COMPUTE_F32, operations round its values where they read them",
            l4j_format_name(o->scheme));
    }
    if (o->flags & ~(uint32_t)L4J_WEIGHT_ALLOW_NONFINITE) {
        return l4j_fail(error, L4J_EINVAL, "weight_create: flags are 0x%x, expected L4J_WEIGHT_ALLOW_NONFINITE or 0",
                        o->flags);
    }
    if (o->rows < 1 || o->cols < 1 || o->rows > L4J_MAX_ELEMENTS / o->cols) {
        return l4j_fail(
            error, L4J_EINVAL,
            "weight_create: rows and cols are %lld and %lld, expected 1 or more each, and at most 2^40 values",
            (long long)o->rows, (long long)o->cols);
    }
    return L4J_OK;
}

static l4j_status check_dense(const l4j_device *device, const l4j_weight_options *o, l4j_error *error) {
    if (o->part_count != 1 || !o->part_roles || !o->part_values || o->part_roles[0] != L4J_ROLE_VALUES) {
        return l4j_fail(error, L4J_EINVAL,
                        "weight_create: a dense weight has one part, L4J_ROLE_VALUES; found %d parts", o->part_count);
    }
    const l4j_tensor *t = &o->part_values[0];
    if (t->dtype != L4J_F32 && t->dtype != L4J_F16 && t->dtype != L4J_BF16) {
        return l4j_fail(error, L4J_ENOTSUP, "weight_create: values have dtype %d, expected F32, F16 or BF16", t->dtype);
    }
    bool host = t->device_type == L4J_DEVICE_CPU && t->device_id == 0;
    bool gpu = device->gpu && t->device_type == L4J_DEVICE_CUDA && t->device_id == device->id;
    if (!(device->gpu ? gpu || (host && o->mode == L4J_WEIGHT_PACK) : host)) {
        return device->gpu
                   ? l4j_fail(error, L4J_EDEVICE,
                              "weight_create: values lie on device type %d, id %d; expected GPU %d, or the CPU "
                              "with L4J_WEIGHT_PACK",
                              t->device_type, t->device_id, device->id)
                   : l4j_fail(error, L4J_EDEVICE,
                              "weight_create: values lie on device type %d, id %d; the weight's device is the CPU",
                              t->device_type, t->device_id);
    }
    if (t->reserved) return l4j_fail(error, L4J_EINVAL, "weight_create: values.reserved is not zero");
    if (t->ndim != 2 || t->shape[0] != o->rows || t->shape[1] != o->cols) {
        return l4j_fail(error, L4J_EINVAL,
                        "weight_create: values are %s [%lld, %lld] in %d dimensions, expected [%lld, %lld]",
                        l4j_dtype_name(t->dtype), (long long)t->shape[0], (long long)t->shape[1], t->ndim,
                        (long long)o->rows, (long long)o->cols);
    }
    if ((t->stride[1] != 1 && o->cols > 1) || (t->stride[0] < o->cols && o->rows > 1)) {
        return l4j_fail(error, L4J_EINVAL, "weight_create: strides are [%lld, %lld], expected [>= %lld, 1]",
                        (long long)t->stride[0], (long long)t->stride[1], (long long)o->cols);
    }
    if (!t->data) return l4j_fail(error, L4J_EINVAL, "weight_create: values.data is NULL");
    if ((uintptr_t)t->data % (uintptr_t)element_bytes(t->dtype) != 0) {
        return l4j_fail(error, L4J_EALIGN, "weight_create: values.data is not aligned to its element size");
    }
    if (gpu && !device->gpu->accessible(device->id, t->data)) {
        return l4j_fail(error, L4J_EDEVICE, "weight_create: values.data is not memory of GPU %d; copy it there first",
                        device->id);
    }
    return L4J_OK;
}

static l4j_status make_dense(l4j_weight *w, l4j_queue *queue, const l4j_weight_options *options, l4j_error *error) {
    L4J_TRY(check_dense(w->device, options, error));
    const l4j_tensor *t = &options->part_values[0];
    w->layout = L4J_LAYOUT_ROWS;
    w->dtype = t->dtype;
    w->row_stride = t->stride[0];
    w->data = t->data;
    bool finite = !(options->flags & L4J_WEIGHT_ALLOW_NONFINITE);
    l4j_finite_check check = {w, options->compute == L4J_COMPUTE_BF16 ? L4J_INF_IN_BF16 : L4J_INF_IN_F32, INT64_MAX};
    if (w->device->gpu) {
        if (queue) L4J_TRY(l4j_queue_synchronize(queue, error)); /* it may still be writing the values */
        int64_t first = -1;
        L4J_TRY(w->device->gpu->weight_create(w, t, finite, &first, error));
        if (first >= 0) atomic_store(&check.first, first);
        return l4j_finite_result(&check, error);
    }
    if (finite) {
        l4j_run_or_alone(queue, check_finite, &check);
        L4J_TRY(l4j_finite_result(&check, error));
    }
    if (options->mode == L4J_WEIGHT_BORROW) return L4J_OK;
    return options->compute == L4J_COMPUTE_BF16 ? to_tiles(w, queue, error) : to_panels(w, queue, error);
}

l4j_status l4j_weight_create(l4j_device *device, l4j_queue *queue, const l4j_weight_options *options,
                             l4j_weight **weight, l4j_error *error) {
    if (!device || !options || !weight) {
        return l4j_fail(error, L4J_EINVAL, "weight_create: %s is NULL",
                        !device    ? "device"
                        : !options ? "options"
                                   : "weight");
    }
    *weight = NULL;
    l4j_status status = check_options(options, error);
    if (status == L4J_OK) status = l4j_check_compute(device, "weight_create", options->compute, error);
    if (status != L4J_OK) return status;
    if (queue && queue->device != device)
        return l4j_fail(error, L4J_EDEVICE, "weight_create: the queue belongs to another device");
    if (queue) L4J_TRY(l4j_queue_hold(queue, "weight_create", error));

    l4j_weight *w = calloc(1, sizeof *w);
    if (!w) {
        status = l4j_fail(error, L4J_ENOMEM, "weight_create: no memory for %zu bytes", sizeof *w);
    } else {
        *w = (l4j_weight){.device = device,
                          .scheme = options->scheme,
                          .mode = options->mode,
                          .rows = options->rows,
                          .cols = options->cols};
        bool dense = options->scheme == L4J_SCHEME_DENSE;
        status = dense ? make_dense(w, queue, options, error) : l4j_weight_quantized(w, queue, options, error);
    }
    if (queue) l4j_queue_release(queue);
    if (status != L4J_OK) {
        if (w) free(w->owned);
        free(w);
        return status;
    }
    atomic_fetch_add(&device->children, 1);
    *weight = w;
    return L4J_OK;
}

l4j_status l4j_weight_destroy(l4j_weight *weight, l4j_error *error) {
    if (!weight) return L4J_OK;
    l4j_status status = L4J_OK;
    atomic_fetch_sub(&weight->device->children, 1);
    if (weight->device->gpu) {
        status = weight->device->gpu->free(weight->device->id, weight->owned, error);
    } else {
        free(weight->owned);
    }
    free(weight);
    return status;
}

l4j_status l4j_weight_query(const l4j_weight *weight, l4j_weight_info *info, l4j_error *error) {
    if (!weight || !info) return l4j_fail(error, L4J_EINVAL, "weight_query: %s is NULL", weight ? "info" : "weight");
    L4J_TRY(l4j_check_struct("weight_query", info->struct_size, sizeof *info, NULL, 0, error));
    *info = (l4j_weight_info){.struct_size = sizeof *info,
                              .scheme = weight->scheme,
                              .mode = weight->mode,
                              .dtype = weight->dtype,
                              .rows = weight->rows,
                              .cols = weight->cols,
                              .bytes_held = weight->bytes_held,
                              .compute = l4j_in_tiles(weight) ? L4J_COMPUTE_BF16 : L4J_COMPUTE_F32};
    return L4J_OK;
}
