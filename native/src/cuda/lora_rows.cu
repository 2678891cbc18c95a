/* Which rows are whose: segments become a map from rows to adapters and, for gradients, rows sorted by adapter. */
#include "lora_kernels.cuh"

namespace l4j {

constexpr int kSortThreads = 1024;

struct Segments {
    const int32_t *count, *offsets, *adapters;
    int32_t capacity;
};

/* The segments follow one another from the first row to the last. */
__device__ static bool check(const LoraParams &p, const Segments &s, int n) {
    if (n < 0 || n > s.capacity) {
        report(p.fault, kBadSegmentCount, 0, n, s.capacity);
        return false;
    }
    bool good = true;
    for (int i = threadIdx.x; i < n; i += kSortThreads) {
        int from = s.offsets[i], to = s.offsets[i + 1], a = s.adapters[i];
        if (from > to || (i == 0 && from != 0)) {
            report(p.fault, kBadSegmentOffset, i, from, to);
            good = false;
        }
        if (a < -1 || a >= p.adapters) {
            report(p.fault, kBadSegmentAdapter, i, a, p.adapters - 1);
            good = false;
        }
    }
    int64_t end = n ? s.offsets[n] : 0;
    if (end != p.M) {
        report(p.fault, kBadSegmentEnd, 0, end, p.M);
        good = false;
    }
    return __syncthreads_and(good);
}

/* Exclusive sums over the block; `total` is the sum of all. */
__device__ static int scan(int value, int *scratch, int &total) {
    int t = threadIdx.x;
    scratch[t] = value;
    __syncthreads();
    for (int d = 1; d < kSortThreads; d *= 2) {
        int below = t >= d ? scratch[t - d] : 0;
        __syncthreads();
        scratch[t] += below;
        __syncthreads();
    }
    int before = t ? scratch[t - 1] : 0;
    total = scratch[kSortThreads - 1];
    __syncthreads();
    return before;
}

__global__ void __launch_bounds__(kSortThreads)
    sort_kernel(const __grid_constant__ LoraParams p, Segments s, bool chunks) {
    __shared__ int scratch[kSortThreads];
    const Sorted &o = p.sorted;
    int t = threadIdx.x, warp = t / 32, lane = t % 32, n = *s.count;
    if (!check(p, s, n)) n = 0;
    if (n == 0) {
        for (int64_t m = t; m < p.M; m += kSortThreads) o.row_adapter[m] = -1;
    }
    for (int i = warp; i < n; i += kSortThreads / 32) {
        for (int m = s.offsets[i] + lane; m < s.offsets[i + 1]; m += 32) o.row_adapter[m] = s.adapters[i];
    }
    if (!chunks) return;

    for (int a = t; a < p.adapters; a += kSortThreads) o.count[a] = 0;
    __syncthreads();
    for (int i = t; i < n; i += kSortThreads) {
        if (s.adapters[i] >= 0) atomicAdd(&o.count[s.adapters[i]], s.offsets[i + 1] - s.offsets[i]);
    }
    __syncthreads();
    int rows_before = 0, chunks_before = 0, slots_before = 0;
    for (int a0 = 0; a0 < p.adapters; a0 += kSortThreads) {
        int a = a0 + t, count = a < p.adapters ? o.count[a] : 0, total;
        int own = (count + kChunkRows - 1) / kChunkRows;
        int first = rows_before + scan(count, scratch, total);
        rows_before += total;
        int chunk = chunks_before + scan(own, scratch, total);
        chunks_before += total;
        int slot = slots_before + scan(own > 1 ? own : 0, scratch, total);
        slots_before += total;
        if (a >= p.adapters) continue;
        o.first[a] = first;
        o.slot[a] = own > 1 ? slot : -1;
        for (int c = 0; c < own; c++) {
            int begin = c * kChunkRows, rows = count - begin < kChunkRows ? count - begin : kChunkRows;
            o.chunks[chunk + c] = Chunk{a, first + begin, rows, own > 1 ? slot + c : -1};
        }
    }
    if (t == 0) *o.chunk_count = chunks_before;
    __syncthreads();
    for (int i = t; i < n; i += kSortThreads) {
        int a = s.adapters[i];
        if (a < 0) continue;
        int at = o.first[a];
        for (int j = 0; j < i; j++) at += s.adapters[j] == a ? s.offsets[j + 1] - s.offsets[j] : 0;
        o.start[i] = at;
    }
    __syncthreads();
    for (int i = warp; i < n; i += kSortThreads / 32) {
        if (s.adapters[i] < 0) continue;
        int from = s.offsets[i], length = s.offsets[i + 1] - from;
        for (int k = lane; k < length; k += 32) o.rows[o.start[i] + k] = from + k;
    }
}

cudaError_t launch_sort(const l4j_queue *queue, const LoraParams &p, const l4j_lora *args, bool chunks) {
    Segments s = {args->segment_count, args->segment_offsets, args->segment_adapters, args->segment_capacity};
    return launch(queue, sort_kernel, 1, kSortThreads, 0, p, s, chunks);
}

/* ---- descriptors ---- */

/* They travel as launch parameters: a call may be captured in a graph, and the caller's memory may be gone when it is replayed. */
struct Entries {
    Adapter of[kTableEntries];
};
static_assert(sizeof(Entries) < 32 * 1024, "what a launch takes from CUDA 12.1 on");

__global__ void table_kernel(const __grid_constant__ Entries entries, int count, Adapter *table) {
    if (threadIdx.x < count) table[threadIdx.x] = entries.of[threadIdx.x];
}

cudaError_t launch_table(const l4j_queue *queue, const Adapter *entries, int count, Adapter *table) {
    Entries some = {};
    for (int e = 0; e < count; e++) some.of[e] = entries[e];
    return launch(queue, table_kernel, 1, kTableEntries, 0, some, count, table);
}

} // namespace l4j
