/* GPUs, streams, memory, events, graphs; the table that the CPU library asks for. */
#include "operations.cuh"

#include <cstdio>
#include <cstring>

namespace l4j {

l4j_status fail(l4j_error *error, const char *what, cudaError_t cuda) {
    cudaGetLastError(); /* it is reported here */
    l4j_status status = cuda == cudaErrorMemoryAllocation ? L4J_ENOMEM : L4J_ECUDA;
    return l4j_fail(error, status, "%s: CUDA says %s (%s)", what, cudaGetErrorName(cuda), cudaGetErrorString(cuda));
}

constexpr int kOldest = 80; /* compute capability 8.0: mma.sync and cp.async for bf16 */

static l4j_status open(int32_t id, int32_t *multiprocessors, l4j_error *error) {
    int count = 0, major = 0, minor = 0, sms = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
        cudaGetLastError();
        return l4j_fail(error, L4J_ENOTSUP, "device_open: there is no usable NVIDIA GPU: CUDA says %s (%s)",
                        cudaGetErrorName(status), cudaGetErrorString(status));
    }
    if (id < 0 || id >= count) {
        return l4j_fail(error, L4J_EINVAL, "device_open: device_id is %d, expected 0 to %d, the GPUs that CUDA shows",
                        id, count - 1);
    }
    L4J_CUDA("device_open", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id));
    L4J_CUDA("device_open", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, id));
    L4J_CUDA("device_open", cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, id));
    if (major * 10 + minor < kOldest) {
        return l4j_fail(error, L4J_ENOTSUP, "device_open: GPU %d has compute capability %d.%d, expected 8.0 or newer",
                        id, major, minor);
    }
    *multiprocessors = sms;
    return L4J_OK;
}

static l4j_status query(int32_t id, l4j_device_info *info, l4j_error *error) {
    cudaDeviceProp properties;
    L4J_CUDA("device_query", cudaGetDeviceProperties(&properties, id));
    *info = l4j_device_info{};
    info->struct_size = sizeof *info;
    info->device_type = L4J_DEVICE_CUDA;
    info->device_id = id;
    info->isa = info->best_isa = info->bf16_isa = info->int8_isa = L4J_ISA_CUDA;
    info->logical_cpus = properties.multiProcessorCount;
    info->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    snprintf(info->isa_name, sizeof info->isa_name, "sm_%d%d", properties.major, properties.minor);
    snprintf(info->cpu_name, sizeof info->cpu_name, "%.63s", properties.name);
    return L4J_OK;
}

static bool accessible(int32_t id, const void *address) {
    cudaPointerAttributes attributes;
    if (cudaPointerGetAttributes(&attributes, address) != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    return attributes.type == cudaMemoryTypeManaged ||
           (attributes.type == cudaMemoryTypeDevice && attributes.device == id);
}

/* ---- memory ---- */

static l4j_status allocate(int32_t id, size_t bytes, void **memory, l4j_error *error) {
    Guard guard(id);
    cudaError_t status = cudaMalloc(memory, bytes ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        size_t left = 0, total = 0;
        cudaMemGetInfo(&left, &total);
        return l4j_fail(error, L4J_ENOMEM, "memory_allocate: no memory for %zu bytes; GPU %d has %zu free of %zu",
                        bytes, id, left, total);
    }
    L4J_CUDA("memory_allocate", status);
    return L4J_OK;
}

static l4j_status release(int32_t id, void *memory, l4j_error *error) {
    Guard guard(id);
    L4J_CUDA("memory_free", cudaFree(memory)); /* waits for what the GPU has begun */
    return L4J_OK;
}

static l4j_status copy(l4j_queue *queue, void *to, const void *from, size_t bytes, l4j_error *error) {
    Guard guard(queue->device->id);
    if (bytes) L4J_CUDA("memory_copy", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(queue)));
    return L4J_OK;
}

static l4j_status fill(l4j_queue *queue, void *memory, int value, size_t bytes, l4j_error *error) {
    Guard guard(queue->device->id);
    if (bytes) L4J_CUDA("memory_fill", cudaMemsetAsync(memory, value, bytes, stream_of(queue)));
    return L4J_OK;
}

/* ---- queues ---- */

static l4j_status queue_create(l4j_queue *queue, const l4j_queue_options *options, l4j_error *error) {
    Guard guard(queue->device->id);
    void *fault = nullptr;
    L4J_CUDA("queue_create", cudaHostAlloc(&fault, sizeof(Fault), cudaHostAllocMapped | cudaHostAllocPortable));
    memset(fault, 0, sizeof(Fault));
    queue->fault = fault;
    if (options && (options->flags & L4J_QUEUE_STREAM)) {
        queue->stream = options->stream;
        return L4J_OK;
    }
    cudaStream_t stream;
    cudaError_t status = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (status != cudaSuccess) cudaFreeHost(fault);
    L4J_CUDA("queue_create", status);
    queue->stream = stream;
    queue->owns_stream = true;
    return L4J_OK;
}

static l4j_status queue_destroy(l4j_queue *queue, l4j_error *error) {
    Guard guard(queue->device->id);
    cudaError_t status = cudaStreamSynchronize(stream_of(queue));
    if (queue->owns_stream) cudaStreamDestroy(stream_of(queue));
    cudaFreeHost(queue->fault);
    L4J_CUDA("queue_destroy", status);
    return L4J_OK;
}

/* What each kind of fault says; index, value and limit in this order. */
static const char *const fault_texts[] = {
    "",
    "embedding: ids[%lld] is %lld, expected 0 to %lld",
    "rope: positions[%lld] is %lld, expected 0 to %lld, the rows of cosine and sine",
    "linear_cross_entropy_forward: targets[%lld] is %lld, expected 0 to %lld, or ignore_index",
    "lora: segment_count[%lld] is %lld, expected 0 to segment_capacity = %lld",
    "lora: segment_offsets[%lld] and the next are %lld and %lld; expected offsets that start at 0 and never fall",
    "lora: segment_adapters[%lld] is %lld, expected -1 to %lld",
    "lora: the segments end (%lld) at row %lld, but x has %lld rows",
    "lora: scaling[%lld] is not finite (%lld, %lld)",
    "lora: module_id[%lld] is %lld, expected 0 to %lld",
    "lora: adapter_id[%lld] is %lld, expected 0 to %lld",
    "attention: q_offsets[%lld] is %lld and does not ascend within 0 to %lld, the rows of q",
    "attention: sequence %lld has keys up to row %lld, expected within 0 to %lld, the rows of k",
    "attention: sequence %lld has %lld queries or keys, expected at most %lld",
    "attention: sequence %lld has %lld queries and %lld keys: its first query would see no key",
    "attention_backward: sequences %lld and %lld share keys from row %lld; their gradients would overwrite each other",
    "adamw_step: groups[%lld].hyper field %lld is out of its range (%lld)",
    "sample_forward: row %lld of logits has a NaN or +Inf, or nothing but -Inf, or hyper field %lld is out of range "
    "(%lld)",
};

static l4j_status queue_wait(l4j_queue *queue, bool poll, l4j_error *error) {
    Guard guard(queue->device->id);
    cudaError_t status = poll ? cudaStreamQuery(stream_of(queue)) : cudaStreamSynchronize(stream_of(queue));
    if (status == cudaErrorNotReady) {
        cudaGetLastError();
        return l4j_fail(error, L4J_EBUSY, "queue_poll: work is running");
    }
    L4J_CUDA(poll ? "queue_poll" : "queue_synchronize", status);
    Fault fault = *fault_of(queue);
    if (fault.kind == kNoFault) return L4J_OK;
    memset(queue->fault, 0, sizeof(Fault));
    char text[300];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, fault_texts[fault.kind], static_cast<long long>(fault.index),
             static_cast<long long>(fault.value), static_cast<long long>(fault.limit));
#pragma GCC diagnostic pop
    return l4j_fail(error, fault.kind == kNoDistribution ? L4J_ENUMERIC : L4J_EINVAL, "%s", text);
}

/* ---- events ---- */

static l4j_status event_create(int32_t id, void **event, l4j_error *error) {
    Guard guard(id);
    cudaEvent_t created;
    L4J_CUDA("event_create", cudaEventCreate(&created));
    *event = created;
    return L4J_OK;
}
static void event_destroy(void *event) { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }
static l4j_status event_record(void *event, l4j_queue *queue, l4j_error *error) {
    Guard guard(queue->device->id);
    L4J_CUDA("event_record", cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(queue)));
    return L4J_OK;
}
static l4j_status event_wait(void *event, l4j_queue *queue, l4j_error *error) {
    Guard guard(queue->device->id);
    L4J_CUDA("event_wait", cudaStreamWaitEvent(stream_of(queue), static_cast<cudaEvent_t>(event), 0));
    return L4J_OK;
}
static l4j_status event_synchronize(void *event, l4j_error *error) {
    L4J_CUDA("event_synchronize", cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
    return L4J_OK;
}
static l4j_status event_elapsed(void *start, void *end, float *milliseconds, l4j_error *error) {
    L4J_CUDA("event_elapsed",
             cudaEventElapsedTime(milliseconds, static_cast<cudaEvent_t>(start), static_cast<cudaEvent_t>(end)));
    return L4J_OK;
}

/* ---- graphs ---- */

static l4j_status graph_begin(l4j_queue *queue, l4j_error *error) {
    Guard guard(queue->device->id);
    L4J_CUDA("graph_begin", cudaStreamBeginCapture(stream_of(queue), cudaStreamCaptureModeThreadLocal));
    return L4J_OK;
}
static l4j_status graph_end(l4j_queue *queue, void **graph, l4j_error *error) {
    Guard guard(queue->device->id);
    cudaGraph_t captured = nullptr;
    cudaGraphExec_t executable;
    L4J_CUDA("graph_end", cudaStreamEndCapture(stream_of(queue), &captured));
    cudaError_t status = cudaGraphInstantiate(&executable, captured, 0);
    cudaGraphDestroy(captured);
    L4J_CUDA("graph_end", status);
    *graph = executable;
    return L4J_OK;
}
static l4j_status graph_launch(void *graph, l4j_queue *queue, l4j_error *error) {
    Guard guard(queue->device->id);
    L4J_CUDA("graph_launch", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(queue)));
    return L4J_OK;
}
static void graph_destroy(void *graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

/* ---- the table ---- */

/* Quantizing is the CPU's: the checks of the arguments refuse it here. */
size_t quantize_forward_workspace(int, const l4j_quantize *) { return 0; }
l4j_status quantize_forward(l4j_queue *, const l4j_quantize *, void *, l4j_error *error) {
    return l4j_fail(error, L4J_ENOTSUP, "quantize_forward: is not done on a GPU");
}

/* An operation with the queue's device current. */
template <class Args, l4j_status (*F)(l4j_queue *, const Args *, void *, l4j_error *)>
static l4j_status guarded(l4j_queue *queue, const Args *args, void *workspace, l4j_error *error) {
    Guard guard(queue->device->id);
    return F(queue, args, workspace, error);
}

static const l4j_kernels kernels = {L4J_ISA_CUDA, "cuda",
#define OP(op, args_t) op##_workspace, guarded<args_t, op>,
                                    L4J_OPERATIONS(OP)
#undef OP
                                        nullptr};

static const l4j_backend backend = {
    L4J_ABI_VERSION,
    sizeof(l4j_backend),
    L4J_VERSION,
    &kernels,
    open,
    query,
    accessible,
    allocate,
    release,
    copy,
    fill,
    queue_create,
    queue_destroy,
    queue_wait,
    event_create,
    event_destroy,
    event_record,
    event_wait,
    event_synchronize,
    event_elapsed,
    graph_begin,
    graph_end,
    graph_launch,
    graph_destroy,
    weight_create,
    weight_create_coded,
};

} // namespace l4j

extern "C" __attribute__((visibility("default"))) const l4j_backend *l4j_cuda_backend(void) { return &l4j::backend; }
