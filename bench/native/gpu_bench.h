// What the programs that time operations on a GPU share: operands in its memory, and the median time of a captured call.
#pragma once

#include <lora4j/lora4j.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <vector>

inline l4j_error failure;

inline void must(l4j_status status) {
    if (status == L4J_OK) return;
    fprintf(stderr, "%s: %s\n", l4j_status_name(status), failure.message);
    exit(1);
}

inline l4j_device *device;
inline l4j_queue *queue;

inline uint16_t bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return static_cast<uint16_t>((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

// Random BF16 values in the GPU's memory; zeros would be multiplied faster.
inline void *values(int64_t n, float scale) {
    void *memory;
    std::vector<uint16_t> host(static_cast<size_t>(n));
    uint64_t state = static_cast<uint64_t>(n) * 0x9E3779B97F4A7C15ull + 1;
    for (uint16_t &h : host) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        h = bf16(scale * (static_cast<float>(state >> 40) / 8388608.0f - 1.0f));
    }
    must(l4j_memory_allocate(device, host.size() * 2, &memory, &failure));
    must(l4j_memory_copy(queue, memory, host.data(), host.size() * 2, &failure));
    must(l4j_queue_synchronize(queue, &failure));
    return memory;
}

// Values in the GPU's memory.
template <class T> T *upload(const std::vector<T> &from) {
    void *memory;
    must(l4j_memory_allocate(device, from.size() * sizeof(T), &memory, &failure));
    must(l4j_memory_copy(queue, memory, from.data(), from.size() * sizeof(T), &failure));
    must(l4j_queue_synchronize(queue, &failure));
    return static_cast<T *>(memory);
}
template <class T> T *scalar(T value) { return upload(std::vector<T>{value}); }

// A contiguous tensor.
inline l4j_tensor tensor(void *data, int32_t dtype, std::initializer_list<int64_t> shape) {
    l4j_tensor t = {};
    t.data = data;
    t.dtype = dtype;
    t.device_type = L4J_DEVICE_CUDA;
    t.ndim = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), t.shape);
    int64_t stride = 1;
    for (int32_t i = t.ndim; i-- > 0; stride *= t.shape[i]) t.stride[i] = stride;
    return t;
}

// Opens the GPU that the command line names, or the first.
inline void open_gpu(int argc, char **argv) {
    l4j_device_options options = {};
    options.struct_size = sizeof options;
    options.device_type = L4J_DEVICE_CUDA;
    options.device_id = argc > 1 ? atoi(argv[1]) : 0;
    must(l4j_device_open(&options, &device, &failure));
    must(l4j_queue_create(device, nullptr, &queue, &failure));
}

// Median microseconds of one call over replays of a graph of what run() records, which are `calls`.
template <class F> double microseconds(F run, size_t calls) {
    run();
    must(l4j_queue_synchronize(queue, &failure));
    l4j_graph *graph;
    must(l4j_graph_begin(queue, &failure));
    run();
    must(l4j_graph_end(queue, &graph, &failure));
    l4j_event *start, *end;
    must(l4j_event_create(device, &start, &failure));
    must(l4j_event_create(device, &end, &failure));
    std::vector<double> times;
    for (int i = 0; i < 22; i++) {
        float ms;
        must(l4j_event_record(start, queue, &failure));
        must(l4j_graph_launch(graph, queue, &failure));
        must(l4j_event_record(end, queue, &failure));
        must(l4j_event_synchronize(end, &failure));
        must(l4j_event_elapsed(start, end, &ms, &failure));
        if (i > 1) times.push_back(1e3 * ms / static_cast<double>(calls));
    }
    must(l4j_queue_synchronize(queue, &failure));
    must(l4j_event_destroy(start, &failure));
    must(l4j_event_destroy(end, &failure));
    must(l4j_graph_destroy(graph, &failure));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}
