/*
 * sample_forward: a block for each row, by the rules of src/cpu/ref/sample.c. Where top_k or top_p is given the row's ids are sorted by
 * falling logit, equal ones by rising id (a stable radix sort in 4-bit digits), and the candidates are a prefix of them.
 */
#include "operations.cuh"

namespace l4j {

constexpr int kSampleThreads = 512;
constexpr int kDigits = 16;

struct SampleParams {
    View logits;
    const l4j_sample_hyper *hyper;
    int32_t *ids;
    int64_t V;
    int32_t *order[2]; /* workspace [M][V]: ids, twice */
    double *weight;    /* workspace [M][V]: of the sorted ids */
    Fault *fault;
};

__device__ static double uniform(const l4j_sample_hyper &h, int64_t row) {
    uint64_t step = static_cast<uint64_t>(h.step);
    Philox p =
        philox(static_cast<uint32_t>(row), 0x73616D70u, static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32),
               static_cast<uint32_t>(h.seed), static_cast<uint32_t>(h.seed >> 32));
    return static_cast<double>((static_cast<uint64_t>(p.w[0]) << 32 | p.w[1]) >> 11) * 0x1p-53;
}

/* Rises as the logit falls. */
__device__ static uint32_t sort_key(float x) {
    uint32_t u = static_cast<uint32_t>(__float_as_int(x + 0.0f)); /* -0 is 0 */
    return u & 0x80000000u ? u : ~(u | 0x80000000u);
}

/* What a thread sees of the row: a run of neighbours, so that threads in order are ids in order. */
struct Run {
    int64_t begin, end;
    __device__ explicit Run(int64_t V) {
        int64_t each = (V + kSampleThreads - 1) / kSampleThreads;
        begin = threadIdx.x * each < V ? threadIdx.x * each : V;
        end = begin + each < V ? begin + each : V;
    }
};

/* ids sorted by key: `counts` has kDigits * kSampleThreads integers. The result is in order[0]. */
__device__ static void sort_row(const SampleParams &p, int64_t m, int32_t *from, int32_t *to, int32_t *counts) {
    Run run(p.V);
    int t = threadIdx.x;
    for (int64_t v = run.begin; v < run.end; v++) from[v] = static_cast<int32_t>(v);
    __syncthreads();
    for (int shift = 0; shift < 32; shift += 4) {
        for (int d = 0; d < kDigits; d++) counts[d * kSampleThreads + t] = 0;
        for (int64_t i = run.begin; i < run.end; i++) {
            counts[(sort_key(read(p.logits, m, from[i])) >> shift & 15) * kSampleThreads + t]++;
        }
        __syncthreads();
        /* Exclusive sums over digits, then threads: each thread adds up 16 neighbours, one thread the threads. */
        __shared__ int32_t before[kSampleThreads];
        int32_t sum = 0;
        for (int d = 0; d < kDigits; d++) sum += counts[t * kDigits + d];
        before[t] = sum;
        __syncthreads();
        for (int step = 1; step < kSampleThreads; step *= 2) {
            int32_t below = t >= step ? before[t - step] : 0;
            __syncthreads();
            before[t] += below;
            __syncthreads();
        }
        int32_t at = t ? before[t - 1] : 0;
        for (int d = 0; d < kDigits; d++) {
            int32_t n = counts[t * kDigits + d];
            counts[t * kDigits + d] = at;
            at += n;
        }
        __syncthreads();
        for (int64_t i = run.begin; i < run.end; i++) {
            int digit = sort_key(read(p.logits, m, from[i])) >> shift & 15;
            to[counts[digit * kSampleThreads + t]++] = from[i];
        }
        __syncthreads();
        int32_t *other = from;
        from = to;
        to = other;
    }
}

/* The sum of exp((logit - max) / temperature) over the row, in a fixed order, and each thread's sum before its run. */
__device__ static double row_sum(const SampleParams &p, int64_t m, double max, double temperature, double *before) {
    Run run(p.V);
    double sum = 0;
    for (int64_t v = run.begin; v < run.end; v++) sum += exp((read(p.logits, m, v) - max) / temperature);
    before[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0;
        for (int t = 0; t < kSampleThreads; t++) {
            double own = before[t];
            before[t] = total;
            total += own;
        }
        before[kSampleThreads] = total;
    }
    __syncthreads();
    return before[kSampleThreads];
}

__global__ void __launch_bounds__(kSampleThreads) sample_kernel(const __grid_constant__ SampleParams p) {
    __shared__ int32_t counts[kDigits * kSampleThreads];
    __shared__ double before[kSampleThreads + 1];
    __shared__ float best_value[kSampleThreads];
    __shared__ int32_t best_id[kSampleThreads];
    __shared__ unsigned long long chosen;
    int64_t m = blockIdx.x;
    int t = threadIdx.x;
    const l4j_sample_hyper h = *p.hyper;
    float best = -__int_as_float(0x7F800000);
    int32_t id = INT32_MAX;
    bool valid = true, finite = false;
    for (int64_t v = t; v < p.V; v += kSampleThreads) {
        float x = read(p.logits, m, v);
        valid &= x == x && x != __int_as_float(0x7F800000);
        finite |= x > -__int_as_float(0x7F800000);
        if (x > best || (x == best && v < id)) {
            best = x;
            id = static_cast<int32_t>(v);
        }
    }
    int wrong = !(h.temperature >= 0 && isfinite(h.temperature)) ? 0
                : !(h.top_p > 0 && h.top_p <= 1)                 ? 1
                : h.top_k < 0                                    ? 2
                                                                 : -1;
    bool good = __syncthreads_and(valid) && __syncthreads_or(finite) && wrong < 0;
    if (!good) {
        if (t == 0) report(p.fault, kNoDistribution, m, wrong, 0);
        return;
    }
    best_value[t] = best;
    best_id[t] = id;
    __syncthreads();
    for (int d = kSampleThreads / 2; d >= 1; d /= 2) {
        if (t < d && (best_value[t + d] > best_value[t] ||
                      (best_value[t + d] == best_value[t] && best_id[t + d] < best_id[t]))) {
            best_value[t] = best_value[t + d];
            best_id[t] = best_id[t + d];
        }
        __syncthreads();
    }
    if (h.temperature == 0) {
        if (t == 0) p.ids[m] = best_id[0];
        return;
    }
    double max = best_value[0], u = uniform(h, m);
    bool top_k = h.top_k > 0 && h.top_k < p.V;
    if (!top_k && h.top_p >= 1) { /* every token, in its own order */
        double target = u * row_sum(p, m, max, h.temperature, before), cumulative = before[t];
        if (t == 0) chosen = ~0ull;
        __syncthreads();
        Run run(p.V);
        int64_t last = -1;
        for (int64_t v = run.begin; v < run.end; v++) {
            double w = exp((read(p.logits, m, v) - max) / h.temperature);
            cumulative += w;
            if (w > 0) last = v;
            if (cumulative > target) {
                atomicMin(&chosen, static_cast<unsigned long long>(v));
                break;
            }
        }
        counts[t] = static_cast<int32_t>(last);
        __syncthreads();
        if (t != 0) return;
        for (int i = kSampleThreads - 1; i >= 0 && chosen == ~0ull; i--) {
            if (counts[i] >= 0) chosen = static_cast<unsigned long long>(counts[i]);
        }
        p.ids[m] = static_cast<int32_t>(chosen);
        return;
    }
    int32_t *order = p.order[0] + m * p.V;
    double *weight = p.weight + m * p.V;
    sort_row(p, m, order, p.order[1] + m * p.V, counts);
    for (int64_t i = t; i < p.V; i += kSampleThreads) {
        weight[i] = exp((read(p.logits, m, order[i]) - max) / h.temperature);
    }
    double sum = top_k ? 0 : row_sum(p, m, max, h.temperature, before);
    __syncthreads();
    if (t != 0) return;
    int64_t kept = p.V, nucleus = 0;
    if (top_k) {
        double kth = 0;
        for (kept = 0; kept < p.V && (kept < h.top_k || weight[kept] == kth); kept++) {
            kth = weight[kept];
            sum += kth;
        }
    }
    double cumulative = 0, reached = 0;
    while (nucleus < kept && (nucleus == 0 || cumulative < h.top_p * sum)) cumulative += weight[nucleus++];
    double target = u * cumulative;
    int32_t last = best_id[0];
    for (int64_t i = 0; i < nucleus; i++) {
        reached += weight[i];
        if (weight[i] > 0) last = order[i];
        if (reached > target) break;
    }
    p.ids[m] = last;
}

static size_t lay_out(const l4j_sample *args, void *workspace, SampleParams *p) {
    l4j_arena arena = {static_cast<char *>(workspace), 0};
    size_t all = static_cast<size_t>(args->logits->shape[0] * args->logits->shape[1]);
    for (int32_t *&order : p->order) order = static_cast<int32_t *>(l4j_take(&arena, sizeof(int32_t) * all));
    p->weight = static_cast<double *>(l4j_take(&arena, sizeof(double) * all));
    return arena.used;
}

size_t sample_forward_workspace(int, const l4j_sample *args) {
    SampleParams p = {};
    return lay_out(args, nullptr, &p);
}

l4j_status sample_forward(l4j_queue *queue, const l4j_sample *args, void *workspace, l4j_error *error) {
    SampleParams p = {};
    lay_out(args, workspace, &p);
    p.logits = view(args->logits);
    p.hyper = args->hyper;
    p.ids = args->ids;
    p.V = args->logits->shape[1];
    p.fault = fault_of(queue);
    dim3 grid(static_cast<unsigned>(args->logits->shape[0]));
    L4J_CUDA("sample_forward", launch(queue, sample_kernel, grid, kSampleThreads, 0, p));
    return L4J_OK;
}

} // namespace l4j
