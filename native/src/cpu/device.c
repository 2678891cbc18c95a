/* Devices, queues, and the table of kernels that a device chose. */
#include "api/check.h"
#include "cuda/backend.h"
#include "features.h"
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* ---- the kernels of every tier ---- */
#define L4J_DECLARE(tier, op, args_t)                                      \
    size_t l4j_##tier##_##op##_workspace(int threads, const args_t *args); \
    l4j_status l4j_##tier##_##op(l4j_queue *queue, const args_t *args, void *workspace, l4j_error *error);
#define L4J_FILL(tier, op) .op##_workspace = l4j_##tier##_##op##_workspace, .op = l4j_##tier##_##op,

#define OP(op, args_t) L4J_DECLARE(ref, op, args_t)
L4J_OPERATIONS(OP)
#undef OP
#define OP(op, args_t) L4J_DECLARE(ref64, op, args_t)
L4J_OPERATIONS(OP)
#undef OP

#define OP(op, args_t) L4J_FILL(ref, op)
static const l4j_kernels ref_kernels = {L4J_OPERATIONS(OP).isa = L4J_ISA_REF, .name = "ref",
                                        .decode_row = l4j_ref_decode_row};
#undef OP
#define OP(op, args_t) L4J_FILL(ref64, op)
static const l4j_kernels ref64_kernels = {L4J_OPERATIONS(OP).isa = L4J_ISA_REF64, .name = "ref64",
                                          .decode_row = l4j_ref64_decode_row};
#undef OP

#if defined(L4J_HAS_X86_TIERS)
#define OP(op, args_t) L4J_DECLARE(avx2, op, args_t)
L4J_OPERATIONS(OP)
#undef OP
#define OP(op, args_t) L4J_DECLARE(avx512, op, args_t)
L4J_OPERATIONS(OP)
#undef OP
#define OP(op, args_t) L4J_FILL(avx2, op)
static const l4j_kernels avx2_kernels = {L4J_OPERATIONS(OP).isa = L4J_ISA_AVX2, .name = "avx2",
                                         .decode_row = l4j_avx2_decode_row};
#undef OP
#define OP(op, args_t) L4J_FILL(avx512, op)
static const l4j_kernels avx512_kernels = {L4J_OPERATIONS(OP).isa = L4J_ISA_AVX512, .name = "avx512",
                                           .decode_row = l4j_avx512_decode_row};
#undef OP
#endif

static const l4j_kernels *const tiers[] = {
    &ref_kernels,
#if defined(L4J_HAS_X86_TIERS)
    &avx2_kernels,
    &avx512_kernels,
#endif
};

/* The best table whose tier is not above `isa`. */
static const l4j_kernels *kernels_for(int32_t isa) {
    const l4j_kernels *best = &ref_kernels;
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
        if (tiers[i]->isa <= isa) best = tiers[i];
    }
    return best;
}

static l4j_status isa_from_environment(int32_t *cap, l4j_error *error) {
    static const char *const names[] = {[L4J_ISA_REF] = "ref",
                                        [L4J_ISA_AVX2] = "avx2",
                                        [L4J_ISA_AVX512] = "avx512",
                                        [L4J_ISA_AVX512_BF16] = "avx512-bf16",
                                        [L4J_ISA_AMX_BF16] = "amx-bf16"};
    const char *text = getenv("LORA4J_MAX_ISA");
    *cap = L4J_ISA_AMX_BF16;
    if (!text || !*text) return L4J_OK;
    for (int32_t isa = L4J_ISA_REF; isa <= L4J_ISA_AMX_BF16; isa++) {
        if (strcmp(text, names[isa]) != 0) continue;
        *cap = isa;
        return L4J_OK;
    }
    return l4j_fail(error, L4J_EINVAL,
                    "environment LORA4J_MAX_ISA is \"%s\", expected ref, avx2, avx512, avx512-bf16 or amx-bf16", text);
}

static l4j_status open_gpu(const l4j_device_options *options, l4j_device **device, l4j_error *error) {
    if (options->max_isa != L4J_ISA_AUTO) {
        return l4j_fail(error, L4J_EINVAL, "device_open: options.max_isa is %d, expected L4J_ISA_AUTO for a GPU",
                        options->max_isa);
    }
    const l4j_backend *gpu;
    int32_t multiprocessors;
    L4J_TRY(l4j_open_backend(&gpu, error));
    L4J_TRY(gpu->open(options->device_id, &multiprocessors, error));
    l4j_device *d = calloc(1, sizeof *d);
    if (!d) return l4j_fail(error, L4J_ENOMEM, "device_open: no memory for %zu bytes", sizeof *d);
    d->gpu = gpu;
    d->id = options->device_id;
    d->isa = d->best_isa = L4J_ISA_CUDA;
    d->multiprocessors = multiprocessors;
    d->kernels = gpu->kernels;
    *device = d;
    return L4J_OK;
}

l4j_status l4j_device_open(const l4j_device_options *options, l4j_device **device, l4j_error *error) {
    if (!device) return l4j_fail(error, L4J_EINVAL, "device_open: device is NULL");
    *device = NULL;
    int32_t asked = L4J_ISA_AUTO, cap;
    if (options) {
        L4J_TRY(l4j_check_struct("device_open", options->struct_size, sizeof *options, options->reserved, 4, error));
        if (options->device_type == L4J_DEVICE_CUDA) return open_gpu(options, device, error);
        if (options->device_type != L4J_DEVICE_CPU || options->device_id != 0) {
            return l4j_fail(error, L4J_ENOTSUP,
                            "device_open: device type %d, id %d; expected the CPU (type %d, id 0) or a GPU (type %d)",
                            options->device_type, options->device_id, L4J_DEVICE_CPU, L4J_DEVICE_CUDA);
        }
        asked = options->max_isa;
        if (asked != L4J_ISA_REF64 && (asked < L4J_ISA_AUTO || asked > L4J_ISA_AMX_BF16)) {
            return l4j_fail(error, L4J_EINVAL,
                            "device_open: options.max_isa is %d, expected a cap among the L4J_ISA_ constants", asked);
        }
    }
    L4J_TRY(isa_from_environment(&cap, error));

    l4j_device *d = calloc(1, sizeof *d);
    if (!d) return l4j_fail(error, L4J_ENOMEM, "device_open: no memory for %zu bytes", sizeof *d);
    int32_t best = l4j_best_isa();
    d->best_isa = kernels_for(best)->isa;
    if (asked == L4J_ISA_REF64) {
        d->kernels = &ref64_kernels;
    } else {
        if (asked != L4J_ISA_AUTO && asked < best) best = asked;
        if (cap < best) best = cap;
        d->kernels = kernels_for(best);
    }
    d->isa = d->kernels->isa;
    d->bf16_isa = d->isa == L4J_ISA_AVX512 ? best : d->isa;
    /* Not where a cap takes instructions away: L4J_ISA_AVX512 stands for what all such processors have. */
    bool capped = best < l4j_best_isa() && best == L4J_ISA_AVX512;
    d->int8_isa = d->isa;
    if (d->isa == L4J_ISA_AVX512 && !capped && l4j_has_avx512_vnni()) d->int8_isa = L4J_ISA_AVX512_VNNI;
    if (d->bf16_isa == L4J_ISA_AMX_BF16 && d->int8_isa == L4J_ISA_AVX512_VNNI && l4j_has_amx_int8())
        d->int8_isa = L4J_ISA_AMX_INT8;
    *device = d;
    return L4J_OK;
}

l4j_status l4j_device_close(l4j_device *device, l4j_error *error) {
    if (!device) return L4J_OK;
    int children = atomic_load(&device->children);
    if (children > 0) {
        return l4j_fail(
            error, L4J_EBUSY,
            "device_close: %d queues, weights or blocks of memory of the device still exist; destroy them first",
            children);
    }
    free(device);
    return L4J_OK;
}

l4j_status l4j_device_query(const l4j_device *device, l4j_device_info *info, l4j_error *error) {
    if (!device || !info) return l4j_fail(error, L4J_EINVAL, "device_query: %s is NULL", device ? "info" : "device");
    L4J_TRY(l4j_check_struct("device_query", info->struct_size, sizeof *info, NULL, 0, error));
    if (device->gpu) return device->gpu->query(device->id, info, error);
    *info = (l4j_device_info){
        .struct_size = sizeof *info,
        .device_type = L4J_DEVICE_CPU,
        .isa = device->isa,
        .best_isa = device->best_isa,
        .logical_cpus = l4j_logical_cpus(),
        .memory_bytes = l4j_memory_bytes(),
        .bf16_isa = device->bf16_isa,
        .int8_isa = device->int8_isa,
    };
    snprintf(info->isa_name, sizeof info->isa_name, "%s", device->kernels->name);
    l4j_cpu_name(info->cpu_name, sizeof info->cpu_name);
    return L4J_OK;
}

/* ---- memory ---- */
void *l4j_cpu_allocate(size_t bytes) {
    size_t alignment = bytes >= L4J_HUGE_BLOCK ? L4J_HUGE_PAGE : L4J_ALIGNMENT;
    if (bytes > SIZE_MAX - alignment) return NULL;
    size_t size = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, size ? size : alignment);
    if (memory && alignment == L4J_HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

/* ---- queues ---- */
enum { DEFAULT_SPIN_US = 50, MAX_THREADS = 1024, ALONE_BELOW = 1 << 18 };

static l4j_status create_pool(l4j_queue *q, const l4j_queue_options *options, l4j_error *error) {
    int threads = options ? options->threads : 0, spin_us = options ? options->spin_us : 0;
    if (options && (options->flags || options->stream)) {
        return l4j_fail(error, L4J_EINVAL, "queue_create: flags or stream is set; expected 0 and NULL on the CPU");
    }
    if (threads < 0 || threads > MAX_THREADS) {
        return l4j_fail(error, L4J_EINVAL, "queue_create: threads is %d, expected 0 (all CPUs) to %d", threads,
                        MAX_THREADS);
    }
    if (threads == 0) threads = l4j_logical_cpus();
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (spin_us == 0) spin_us = DEFAULT_SPIN_US;
    q->threads = threads;
    q->alone_below = ALONE_BELOW;
    q->pool = l4j_pool_create(threads, spin_us < 0 ? 0 : spin_us, error);
    return q->pool ? L4J_OK : L4J_ENOMEM;
}

static l4j_status create_stream(l4j_queue *q, const l4j_queue_options *options, l4j_error *error) {
    if (options && (options->flags & ~(uint32_t)L4J_QUEUE_STREAM)) {
        return l4j_fail(error, L4J_EINVAL, "queue_create: flags are 0x%x, expected L4J_QUEUE_STREAM or 0",
                        options->flags);
    }
    if (options && (options->threads || options->spin_us)) {
        return l4j_fail(error, L4J_EINVAL, "queue_create: threads and spin_us are %d and %d, expected 0 on a GPU",
                        options->threads, options->spin_us);
    }
    if (options && options->stream && !options->flags) {
        return l4j_fail(error, L4J_EINVAL, "queue_create: stream is given without L4J_QUEUE_STREAM");
    }
    q->threads = q->device->multiprocessors;
    return q->device->gpu->queue_create(q, options, error);
}

l4j_status l4j_queue_create(l4j_device *device, const l4j_queue_options *options, l4j_queue **queue, l4j_error *error) {
    if (!device || !queue) return l4j_fail(error, L4J_EINVAL, "queue_create: %s is NULL", device ? "queue" : "device");
    *queue = NULL;
    if (options) {
        L4J_TRY(l4j_check_struct("queue_create", options->struct_size, sizeof *options, options->reserved, 3, error));
    }
    l4j_queue *q = calloc(1, sizeof *q);
    if (!q) return l4j_fail(error, L4J_ENOMEM, "queue_create: no memory for %zu bytes", sizeof *q);
    q->device = device;
    l4j_status status = device->gpu ? create_stream(q, options, error) : create_pool(q, options, error);
    if (status != L4J_OK) {
        free(q);
        return status;
    }
    atomic_fetch_add(&device->children, 1);
    *queue = q;
    return L4J_OK;
}

l4j_status l4j_queue_hold(l4j_queue *queue, const char *op, l4j_error *error) {
    if (queue->pool && l4j_pool_lost(queue->pool)) {
        return l4j_fail(error, L4J_EINVAL,
                        "%s: the queue's threads did not survive fork(); create a queue in the child process", op);
    }
    int turn = atomic_load(&queue->turn);
    if (turn % 2 || !atomic_compare_exchange_strong(&queue->turn, &turn, turn + 1)) {
        return l4j_fail(error, L4J_EBUSY,
                        "%s: the queue is in use by another thread; a queue runs one operation at a time", op);
    }
    return L4J_OK;
}

void l4j_queue_release(l4j_queue *queue) { atomic_fetch_add(&queue->turn, 1); }

l4j_status l4j_queue_destroy(l4j_queue *queue, l4j_error *error) {
    if (!queue) return L4J_OK;
    if (!queue->pool || !l4j_pool_lost(queue->pool)) L4J_TRY(l4j_queue_hold(queue, "queue_destroy", error));
    l4j_status status = L4J_OK;
    if (queue->pool) {
        l4j_pool_destroy(queue->pool);
    } else {
        status = queue->device->gpu->queue_destroy(queue, error);
    }
    atomic_fetch_sub(&queue->device->children, 1);
    free(queue);
    return status;
}

l4j_status l4j_queue_synchronize(l4j_queue *queue, l4j_error *error) {
    if (!queue) return l4j_fail(error, L4J_EINVAL, "queue_synchronize: queue is NULL");
    if (!queue->pool) return queue->device->gpu->queue_wait(queue, false, error);
    /* Calls on the CPU return when the work is done: only another thread's can still run, and only that one is waited for. */
    int turn = atomic_load(&queue->turn);
    while (turn % 2 && !l4j_pool_lost(queue->pool) && atomic_load(&queue->turn) == turn) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return L4J_OK;
}

l4j_status l4j_queue_poll(l4j_queue *queue, l4j_error *error) {
    if (!queue) return l4j_fail(error, L4J_EINVAL, "queue_poll: queue is NULL");
    if (!queue->pool) return queue->device->gpu->queue_wait(queue, true, error);
    return atomic_load(&queue->turn) % 2 ? l4j_fail(error, L4J_EBUSY, "queue_poll: an operation is running") : L4J_OK;
}

void l4j_queue_run_alone_below(l4j_queue *queue, int64_t work) { queue->alone_below = work; }

int32_t l4j_queue_threads(const l4j_queue *queue) { return queue ? queue->threads : 0; }
