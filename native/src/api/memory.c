/* Memory of a device: blocks, copies, fills. */
#include "check.h"
#include "cuda/backend.h"

#include <stdlib.h>
#include <string.h>

l4j_status l4j_memory_allocate(l4j_device *device, size_t bytes, void **memory, l4j_error *error) {
    if (!device || !memory) {
        return l4j_fail(error, L4J_EINVAL, "memory_allocate: %s is NULL", device ? "memory" : "device");
    }
    *memory = NULL;
    if (device->gpu) {
        L4J_TRY(device->gpu->allocate(device->id, bytes, memory, error));
    } else {
        *memory = l4j_cpu_allocate(bytes);
        if (!*memory) return l4j_fail(error, L4J_ENOMEM, "memory_allocate: no memory for %zu bytes", bytes);
    }
    atomic_fetch_add(&device->children, 1);
    return L4J_OK;
}

l4j_status l4j_memory_free(l4j_device *device, void *memory, l4j_error *error) {
    if (!device) return l4j_fail(error, L4J_EINVAL, "memory_free: device is NULL");
    if (!memory) return L4J_OK;
    if (device->gpu) {
        L4J_TRY(device->gpu->free(device->id, memory, error));
    } else {
        free(memory);
    }
    atomic_fetch_sub(&device->children, 1);
    return L4J_OK;
}

l4j_status l4j_memory_copy(l4j_queue *queue, void *to, const void *from, size_t bytes, l4j_error *error) {
    if (!queue || (bytes > 0 && (!to || !from))) {
        return l4j_fail(error, L4J_EINVAL, "memory_copy: %s is NULL", !queue ? "queue" : !to ? "to" : "from");
    }
    L4J_TRY(l4j_queue_hold(queue, "memory_copy", error));
    l4j_status status = L4J_OK;
    if (queue->device->gpu) {
        status = queue->device->gpu->copy(queue, to, from, bytes, error);
    } else if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    l4j_queue_release(queue);
    return status;
}

l4j_status l4j_memory_fill(l4j_queue *queue, void *memory, int32_t value, size_t bytes, l4j_error *error) {
    if (!queue || (bytes > 0 && !memory)) {
        return l4j_fail(error, L4J_EINVAL, "memory_fill: %s is NULL", queue ? "memory" : "queue");
    }
    if (value < 0 || value > 255) {
        return l4j_fail(error, L4J_EINVAL, "memory_fill: value is %d, expected 0 to 255", value);
    }
    L4J_TRY(l4j_queue_hold(queue, "memory_fill", error));
    l4j_status status = L4J_OK;
    if (queue->device->gpu) {
        status = queue->device->gpu->fill(queue, memory, value, bytes, error);
    } else if (bytes > 0) {
        memset(memory, value, bytes);
    }
    l4j_queue_release(queue);
    return status;
}
