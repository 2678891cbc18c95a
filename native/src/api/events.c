/* Events and graphs. On the CPU a call has run when it returns: an event is the time at which it was recorded. */
#include "check.h"
#include "cuda/backend.h"

#include <stdlib.h>
#include <time.h>

struct l4j_event {
    l4j_device *device;
    void *gpu;
    double recorded; /* milliseconds; negative before the first time */
};

struct l4j_graph {
    l4j_device *device;
    void *gpu;
};

l4j_status l4j_event_create(l4j_device *device, l4j_event **event, l4j_error *error) {
    if (!device || !event) return l4j_fail(error, L4J_EINVAL, "event_create: %s is NULL", device ? "event" : "device");
    *event = NULL;
    l4j_event *e = calloc(1, sizeof *e);
    if (!e) return l4j_fail(error, L4J_ENOMEM, "event_create: no memory for %zu bytes", sizeof *e);
    *e = (l4j_event){.device = device, .recorded = -1};
    l4j_status status = device->gpu ? device->gpu->event_create(device->id, &e->gpu, error) : L4J_OK;
    if (status != L4J_OK) {
        free(e);
        return status;
    }
    atomic_fetch_add(&device->children, 1);
    *event = e;
    return L4J_OK;
}

l4j_status l4j_event_destroy(l4j_event *event, l4j_error *error) {
    (void)error;
    if (!event) return L4J_OK;
    if (event->gpu) event->device->gpu->event_destroy(event->gpu);
    atomic_fetch_sub(&event->device->children, 1);
    free(event);
    return L4J_OK;
}

static l4j_status check_pair(const char *op, const l4j_event *event, const l4j_queue *queue, l4j_error *error) {
    if (!event || !queue) return l4j_fail(error, L4J_EINVAL, "%s: %s is NULL", op, event ? "queue" : "event");
    if (event->device != queue->device) {
        return l4j_fail(error, L4J_EDEVICE, "%s: event and queue belong to different devices", op);
    }
    return L4J_OK;
}

l4j_status l4j_event_record(l4j_event *event, l4j_queue *queue, l4j_error *error) {
    L4J_TRY(check_pair("event_record", event, queue, error));
    if (event->gpu) L4J_TRY(event->device->gpu->event_record(event->gpu, queue, error));
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->recorded = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
    return L4J_OK;
}

static l4j_status check_recorded(const char *op, const char *name, const l4j_event *event, l4j_error *error) {
    if (!event) return l4j_fail(error, L4J_EINVAL, "%s: %s is NULL", op, name);
    return event->recorded < 0 ? l4j_fail(error, L4J_EINVAL, "%s: %s was never recorded", op, name) : L4J_OK;
}

l4j_status l4j_event_wait(l4j_event *event, l4j_queue *queue, l4j_error *error) {
    L4J_TRY(check_pair("event_wait", event, queue, error));
    L4J_TRY(check_recorded("event_wait", "event", event, error));
    return event->gpu ? event->device->gpu->event_wait(event->gpu, queue, error) : L4J_OK;
}

l4j_status l4j_event_synchronize(l4j_event *event, l4j_error *error) {
    L4J_TRY(check_recorded("event_synchronize", "event", event, error));
    return event->gpu ? event->device->gpu->event_synchronize(event->gpu, error) : L4J_OK;
}

l4j_status l4j_event_elapsed(l4j_event *start, l4j_event *end, float *milliseconds, l4j_error *error) {
    L4J_TRY(check_recorded("event_elapsed", "start", start, error));
    L4J_TRY(check_recorded("event_elapsed", "end", end, error));
    L4J_TRY(l4j_check_pointer("event_elapsed", "milliseconds", milliseconds, error));
    if (start->device != end->device) {
        return l4j_fail(error, L4J_EDEVICE, "event_elapsed: start and end belong to different devices");
    }
    if (start->gpu) return start->device->gpu->event_elapsed(start->gpu, end->gpu, milliseconds, error);
    *milliseconds = (float)(end->recorded - start->recorded);
    return L4J_OK;
}

/* ---- graphs ---- */

static l4j_status check_gpu(const char *op, const l4j_queue *queue, l4j_error *error) {
    L4J_TRY(l4j_check_pointer(op, "queue", queue, error));
    return queue->device->gpu ? L4J_OK
                              : l4j_fail(error, L4J_ENOTSUP, "%s: the queue is the CPU's, expected a GPU's", op);
}

l4j_status l4j_graph_begin(l4j_queue *queue, l4j_error *error) {
    L4J_TRY(check_gpu("graph_begin", queue, error));
    return queue->device->gpu->graph_begin(queue, error);
}

l4j_status l4j_graph_end(l4j_queue *queue, l4j_graph **graph, l4j_error *error) {
    L4J_TRY(check_gpu("graph_end", queue, error));
    L4J_TRY(l4j_check_pointer("graph_end", "graph", graph, error));
    *graph = NULL;
    l4j_graph *g = calloc(1, sizeof *g);
    if (!g) return l4j_fail(error, L4J_ENOMEM, "graph_end: no memory for %zu bytes", sizeof *g);
    g->device = queue->device;
    l4j_status status = queue->device->gpu->graph_end(queue, &g->gpu, error);
    if (status != L4J_OK) {
        free(g);
        return status;
    }
    atomic_fetch_add(&g->device->children, 1);
    *graph = g;
    return L4J_OK;
}

l4j_status l4j_graph_launch(l4j_graph *graph, l4j_queue *queue, l4j_error *error) {
    L4J_TRY(l4j_check_pointer("graph_launch", "graph", graph, error));
    L4J_TRY(check_gpu("graph_launch", queue, error));
    if (graph->device != queue->device) {
        return l4j_fail(error, L4J_EDEVICE, "graph_launch: graph and queue belong to different devices");
    }
    return graph->device->gpu->graph_launch(graph->gpu, queue, error);
}

l4j_status l4j_graph_destroy(l4j_graph *graph, l4j_error *error) {
    (void)error;
    if (!graph) return L4J_OK;
    graph->device->gpu->graph_destroy(graph->gpu);
    atomic_fetch_sub(&graph->device->children, 1);
    free(graph);
    return L4J_OK;
}
