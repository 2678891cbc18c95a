/*
 * What liblora4j and liblora4j_cuda tell each other: one table, from the one symbol that the CUDA library exports. The CPU library
 * opens it when a GPU is first asked for, so it never needs libcuda itself.
 */
#ifndef L4J_BACKEND_H
#define L4J_BACKEND_H

#include "cpu/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct l4j_backend {
    uint32_t abi_version; /* L4J_ABI_VERSION that the library was compiled with */
    uint32_t struct_size;
    const char *release; /* like l4j_version_string(): both libraries are of one build */
    const l4j_kernels *kernels;

    /* Whether GPU `id` is there and new enough; its multiprocessors. */
    l4j_status (*open)(int32_t id, int32_t *multiprocessors, l4j_error *error);
    l4j_status (*query)(int32_t id, l4j_device_info *info, l4j_error *error);
    /* Whether a kernel on GPU `id` may use the address. */
    bool (*accessible)(int32_t id, const void *address);

    l4j_status (*allocate)(int32_t id, size_t bytes, void **memory, l4j_error *error);
    l4j_status (*free)(int32_t id, void *memory, l4j_error *error);
    l4j_status (*copy)(l4j_queue *queue, void *to, const void *from, size_t bytes, l4j_error *error);
    l4j_status (*fill)(l4j_queue *queue, void *memory, int value, size_t bytes, l4j_error *error);

    /* Fills in or gives back the queue's stream and fault record. */
    l4j_status (*queue_create)(l4j_queue *queue, const l4j_queue_options *options, l4j_error *error);
    l4j_status (*queue_destroy)(l4j_queue *queue, l4j_error *error);
    /* Waits, or tells L4J_EBUSY; then the first asynchronous failure. */
    l4j_status (*queue_wait)(l4j_queue *queue, bool poll, l4j_error *error);

    l4j_status (*event_create)(int32_t id, void **event, l4j_error *error);
    void (*event_destroy)(void *event);
    l4j_status (*event_record)(void *event, l4j_queue *queue, l4j_error *error);
    l4j_status (*event_wait)(void *event, l4j_queue *queue, l4j_error *error);
    l4j_status (*event_synchronize)(void *event, l4j_error *error);
    l4j_status (*event_elapsed)(void *start, void *end, float *milliseconds, l4j_error *error);

    l4j_status (*graph_begin)(l4j_queue *queue, l4j_error *error);
    l4j_status (*graph_end)(l4j_queue *queue, void **graph, l4j_error *error);
    l4j_status (*graph_launch)(void *graph, l4j_queue *queue, l4j_error *error);
    void (*graph_destroy)(void *graph);

    /* Checks a weight's values, of the host or the GPU, for NaN and Inf: `first` is the lowest index n·cols + k, or -1. Copies them
       for L4J_WEIGHT_PACK to memory of the GPU's. Waits for both. */
    l4j_status (*weight_create)(l4j_weight *weight, const l4j_tensor *values, bool check, int64_t *first,
                                l4j_error *error);
    /* Copies the parts of a quantized weight, which the host has and weight->quant notes, to the GPU in the layout of its kernels, and
       lets weight->quant point there. Checks and waits likewise; owns nothing where it finds a NaN or Inf. */
    l4j_status (*weight_create_coded)(l4j_weight *weight, const l4j_weight_options *options, bool check, int64_t *first,
                                      l4j_error *error);
} l4j_backend;

/* The symbol of liblora4j_cuda.so: const l4j_backend *l4j_cuda_backend(void). */
typedef const l4j_backend *(*l4j_cuda_backend_function)(void);

/* Opens liblora4j_cuda.so once. */
l4j_status l4j_open_backend(const l4j_backend **backend, l4j_error *error);

#ifdef __cplusplus
}
#endif

#endif
