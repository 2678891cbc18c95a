/* adamw_step: norms, factors and updates of all groups in three launches; the arithmetic and its order are the CPU's. */
#include "operations.cuh"

#include "quant/dynamic_map.h"

namespace l4j {

constexpr int kBlock = 4096; /* elements of a partial sum of the norm */
constexpr int kLanes = 16;   /* of a partial sum */
constexpr int kThreads = 256;
constexpr int kEntries = 48; /* descriptors in one launch */

struct AdamwTensor {
    float *param, *grad;
    void *exp_avg, *exp_avg_sq;                /* floats, or bytes where there are scales */
    float *exp_avg_scales, *exp_avg_sq_scales; /* of 8-bit state, else NULL */
    int64_t elements, first_block;
    int32_t group, index; /* index in its group */
};
struct AdamwGroup {
    const l4j_adamw_hyper *hyper;
    double *grad_norm;
    int64_t first_tensor, tensors;
};
/* What an update needs, rounded to fp32 as the CPU rounds it. */
struct AdamwFactors {
    float grad_scale, decay, one_minus_beta1, beta2, one_minus_beta2, sqrt_correction2, epsilon, negative_step;
    int32_t skip, bad; /* bad: the first tensor whose sum is not finite, or -1 */
};

struct AdamwParams {
    AdamwTensor *tensors;
    AdamwGroup *groups;
    AdamwFactors *factors;
    double *partial, *sums; /* of blocks and of tensors */
    int64_t tensor_count, group_count, block_count;
    l4j_numeric_status *numeric;
    bool zero_grads;
    Fault *fault;
};

template <class Entry> struct AdamwEntries { Entry of[kEntries]; };
template <class Entry>
__global__ void adamw_table_kernel(const __grid_constant__ AdamwEntries<Entry> some, int n, Entry *to) {
    if (threadIdx.x < n) to[threadIdx.x] = some.of[threadIdx.x];
}

/* The tensor that block b belongs to: the last one that begins at or before it and has elements. */
__device__ static const AdamwTensor &tensor_of(const AdamwParams &p, int64_t b) {
    int64_t low = 0, high = p.tensor_count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (p.tensors[middle].first_block <= b) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return p.tensors[low];
}

/* Sixteen threads for a block: lane l sums the squares of the elements l, l + 16, ..., then 8, 4, 2, 1. */
__global__ void __launch_bounds__(kThreads) adamw_norm_kernel(const __grid_constant__ AdamwParams p) {
    int64_t b = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
    int lane = threadIdx.x % kLanes;
    double sum = 0;
    if (b < p.block_count) {
        const AdamwTensor &t = tensor_of(p, b);
        int64_t first = (b - t.first_block) * kBlock, last = first + kBlock < t.elements ? first + kBlock : t.elements;
#pragma unroll 8
        for (int64_t i = first + lane; i < last; i += kLanes)
            sum = __fma_rn(t.grad[i], static_cast<double>(t.grad[i]), sum);
    }
    for (int d = kLanes / 2; d >= 1; d /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, d, kLanes);
    if (b < p.block_count && lane == 0) p.partial[b] = sum;
}

__device__ static double power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent >>= 1, base *= base) {
        if (exponent & 1) result *= base;
    }
    return result;
}

/* The place of the first field of a group's settings that is out of its range, or -1. */
__device__ static int wrong_field(const l4j_adamw_hyper &h) {
    const double values[] = {h.learning_rate, h.beta1,         h.beta2,     h.epsilon,
                             h.weight_decay,  h.max_grad_norm, h.grad_scale};
    for (int i = 0; i < 7; i++) {
        if (!(values[i] >= 0 && isfinite(values[i])) || ((i == 1 || i == 2) && values[i] >= 1)) return i;
    }
    return h.step < 1 ? 7 : -1;
}

__device__ static void prepare_group(const AdamwParams &p, int64_t g) {
    const AdamwGroup &group = p.groups[g];
    const l4j_adamw_hyper h = *group.hyper;
    double total = 0;
    int bad = -1;
    for (int64_t t = 0; t < group.tensors; t++) {
        total += p.sums[group.first_tensor + t];
        if (bad < 0 && !isfinite(total)) bad = static_cast<int>(t);
    }
    int wrong = wrong_field(h);
    if (wrong >= 0) report(p.fault, kBadHyper, g, wrong, 0);
    double norm = h.grad_scale * sqrt(total), clip = 1;
    if (group.grad_norm) *group.grad_norm = norm;
    if (h.max_grad_norm > 0) clip = fmin(1.0, h.max_grad_norm / (norm + 1e-6));
    AdamwFactors f;
    f.grad_scale = static_cast<float>(h.grad_scale * clip);
    f.decay = static_cast<float>(1 - h.learning_rate * h.weight_decay);
    f.one_minus_beta1 = static_cast<float>(1 - h.beta1);
    f.beta2 = static_cast<float>(h.beta2);
    f.one_minus_beta2 = static_cast<float>(1 - h.beta2);
    f.sqrt_correction2 = static_cast<float>(sqrt(1 - power(h.beta2, h.step)));
    f.epsilon = static_cast<float>(h.epsilon);
    f.negative_step = static_cast<float>(-(h.learning_rate / (1 - power(h.beta1, h.step))));
    f.bad = bad;
    f.skip = bad >= 0 || wrong >= 0;
    p.factors[g] = f;
}

/* One block: sums of tensors, then factors of groups, then the report of the first group whose norm is not finite. */
__global__ void __launch_bounds__(kThreads) adamw_prepare_kernel(const __grid_constant__ AdamwParams p) {
    for (int64_t t = threadIdx.x; t < p.tensor_count; t += kThreads) {
        int64_t first = p.tensors[t].first_block, count = (p.tensors[t].elements + kBlock - 1) / kBlock;
        double sum = 0;
        for (int64_t b = 0; b < count; b++) sum += p.partial[first + b];
        p.sums[t] = sum;
    }
    __syncthreads();
    for (int64_t g = threadIdx.x; g < p.group_count; g += kThreads) prepare_group(p, g);
    __syncthreads();
    if (threadIdx.x != 0 || !p.numeric || p.numeric->operation != L4J_OP_NONE) return;
    for (int64_t g = 0; g < p.group_count; g++) {
        if (p.factors[g].bad < 0) continue;
        p.numeric->step = p.groups[g].hyper->step;
        p.numeric->operation = L4J_OP_ADAMW;
        p.numeric->tensor = p.factors[g].bad;
        p.numeric->group = static_cast<int32_t>(g);
        p.numeric->reserved = 0;
        return;
    }
}

/* One element; the moments are read and become the new ones. */
__device__ static void update(const AdamwFactors &f, float grad, float &param, float &m, float &v) {
    float g = grad * f.grad_scale, q = param * f.decay;
    m = __fmaf_rn(f.one_minus_beta1, g - m, m);
    v = __fmaf_rn(g * g, f.one_minus_beta2, v * f.beta2);
    float denominator = sqrtf(v) / f.sqrt_correction2 + f.epsilon;
    param = __fmaf_rn(m / denominator, f.negative_step, q);
}

/* ---- 8-bit state ---- */

constexpr int kStateBlock = L4J_ADAMW_STATE_BLOCK, kPerLane = kStateBlock / 32;
__constant__ uint32_t kSignedMap[256] = {L4J_DYNAMIC_MAP}, kUnsignedMap[256] = {L4J_UNSIGNED_DYNAMIC_MAP};

/* The values of codes, and what lies between neighbours; in shared memory, as lanes look at different ones. */
struct AdamwMap {
    float value[256], middle[256];

    __device__ void load(const uint32_t *bits) {
        for (int i = threadIdx.x; i < 256; i += kThreads) {
            value[i] = __uint_as_float(bits[i]);
            if (i < 255) middle[i] = (value[i] + __uint_as_float(bits[i + 1])) / 2.0f;
        }
    }
    /* The number of middles that are below x. */
    __device__ uint8_t code(float x) const {
        int below = 0;
#pragma unroll
        for (int step = 128; step >= 1; step /= 2) below += x > middle[below + step - 1] ? step : 0;
        return static_cast<uint8_t>(below);
    }
};

/* The scale and the codes of a block, of which lane l of a warp has the elements l, l + 32, ... */
__device__ static void encode(const AdamwMap &map, const float (&x)[kPerLane], int64_t count, uint8_t *codes,
                              float *scale) {
    int lane = threadIdx.x % 32;
    float most = 0.0f;
#pragma unroll
    for (int j = 0; j < kPerLane; j++) most = fmaxf(most, fabsf(x[j])); /* passes over NaN, as the CPU does */
    for (int d = 16; d >= 1; d /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, d));
    float divisor = most > 0.0f ? most : 1.0f;
#pragma unroll
    for (int j = 0; j < kPerLane; j++) {
        if (lane + 32 * j < count) codes[lane + 32 * j] = map.code(x[j] / divisor);
    }
    if (lane == 0) *scale = most;
}

/* Elements [first, last) of a tensor with 8-bit state; a warp takes a block of it at a time. */
__device__ static void update_coded(const AdamwTensor &t, const AdamwFactors &f, int64_t first, int64_t last) {
    __shared__ AdamwMap maps[2];
    maps[0].load(kSignedMap);
    maps[1].load(kUnsignedMap);
    __syncthreads();
    int lane = threadIdx.x % 32;
    for (int64_t i = first + threadIdx.x / 32 * kStateBlock; i < last; i += kThreads / 32 * kStateBlock) {
        int64_t count = last - i < kStateBlock ? last - i : kStateBlock;
        uint8_t *m_codes = static_cast<uint8_t *>(t.exp_avg) + i, *v_codes = static_cast<uint8_t *>(t.exp_avg_sq) + i;
        float *m_scale = t.exp_avg_scales + i / kStateBlock, *v_scale = t.exp_avg_sq_scales + i / kStateBlock;
        float m[kPerLane] = {}, v[kPerLane] = {}, old_m_scale = *m_scale, old_v_scale = *v_scale;
#pragma unroll
        for (int j = 0; j < kPerLane; j++) {
            int at = lane + 32 * j;
            if (at >= count) continue;
            m[j] = maps[0].value[m_codes[at]] * old_m_scale;
            v[j] = maps[1].value[v_codes[at]] * old_v_scale;
            update(f, t.grad[i + at], t.param[i + at], m[j], v[j]);
        }
        __syncwarp(); /* all have read the scales */
        encode(maps[0], m, count, m_codes, m_scale);
        encode(maps[1], v, count, v_codes, v_scale);
    }
}

__global__ void __launch_bounds__(kThreads) adamw_update_kernel(const __grid_constant__ AdamwParams p) {
    const AdamwTensor &t = tensor_of(p, blockIdx.x);
    const AdamwFactors f = p.factors[t.group];
    int64_t first = (blockIdx.x - t.first_block) * kBlock,
            last = first + kBlock < t.elements ? first + kBlock : t.elements;
    bool coded = t.exp_avg_scales;
    if (coded && !f.skip) {
        update_coded(t, f, first, last);
        __syncthreads();
    }
    float *exp_avg = static_cast<float *>(t.exp_avg), *exp_avg_sq = static_cast<float *>(t.exp_avg_sq);
    for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
        if (!coded && !f.skip) update(f, t.grad[i], t.param[i], exp_avg[i], exp_avg_sq[i]);
        if (p.zero_grads) t.grad[i] = 0.0f;
    }
}

static int64_t elements(const l4j_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

static size_t lay_out(const l4j_adamw *args, void *workspace, AdamwParams *p) {
    for (int64_t g = 0; g < args->group_count; g++) {
        p->tensor_count += args->groups[g].tensor_count;
        for (int64_t t = 0; t < args->groups[g].tensor_count; t++) {
            p->block_count += ceil_div(elements(&args->groups[g].params[t]), kBlock);
        }
    }
    p->group_count = args->group_count;
    l4j_arena arena = {static_cast<char *>(workspace), 0};
    auto take = [&](size_t size, int64_t n) { return l4j_take(&arena, size * static_cast<size_t>(n)); };
    p->tensors = static_cast<AdamwTensor *>(take(sizeof(AdamwTensor), p->tensor_count));
    p->groups = static_cast<AdamwGroup *>(take(sizeof(AdamwGroup), p->group_count));
    p->factors = static_cast<AdamwFactors *>(take(sizeof(AdamwFactors), p->group_count));
    p->partial = static_cast<double *>(take(sizeof(double), p->block_count));
    p->sums = static_cast<double *>(take(sizeof(double), p->tensor_count));
    return arena.used;
}

/* Collects descriptors and sends them as launch parameters, kEntries at a time. */
template <class Entry> struct TableWriter {
    l4j_queue *queue;
    Entry *to;
    AdamwEntries<Entry> some = {};
    int n = 0;

    cudaError_t add(const Entry &entry) {
        some.of[n++] = entry;
        return n == kEntries ? flush() : cudaSuccess;
    }
    cudaError_t flush() {
        if (n == 0) return cudaSuccess;
        cudaError_t status = launch(queue, adamw_table_kernel<Entry>, 1, 64, 0, some, n, to);
        to += n;
        n = 0;
        return status;
    }
};

static cudaError_t write_tables(l4j_queue *queue, const l4j_adamw *args, const AdamwParams &p) {
    TableWriter<AdamwTensor> tensors{queue, p.tensors};
    TableWriter<AdamwGroup> groups{queue, p.groups};
    int64_t block = 0, first = 0;
    cudaError_t status = cudaSuccess;
    for (int64_t g = 0; g < args->group_count && status == cudaSuccess; g++) {
        const l4j_adamw_group &group = args->groups[g];
        for (int64_t t = 0; t < group.tensor_count && status == cudaSuccess; t++) {
            bool coded = group.exp_avgs[t].dtype == L4J_U8;
            AdamwTensor entry = {static_cast<float *>(group.params[t].data),
                                 static_cast<float *>(group.grads[t].data),
                                 group.exp_avgs[t].data,
                                 group.exp_avg_sqs[t].data,
                                 coded ? static_cast<float *>(group.exp_avg_scales[t].data) : nullptr,
                                 coded ? static_cast<float *>(group.exp_avg_sq_scales[t].data) : nullptr,
                                 elements(&group.params[t]),
                                 block,
                                 static_cast<int32_t>(g),
                                 static_cast<int32_t>(t)};
            block += ceil_div(entry.elements, kBlock);
            status = tensors.add(entry);
        }
        if (status == cudaSuccess) status = groups.add({group.hyper, group.grad_norm, first, group.tensor_count});
        first += group.tensor_count;
    }
    if (status == cudaSuccess) status = tensors.flush();
    return status == cudaSuccess ? groups.flush() : status;
}

size_t adamw_step_workspace(int, const l4j_adamw *args) {
    AdamwParams p = {};
    return lay_out(args, nullptr, &p);
}

l4j_status adamw_step(l4j_queue *queue, const l4j_adamw *args, void *workspace, l4j_error *error) {
    AdamwParams p = {};
    lay_out(args, workspace, &p);
    if (p.group_count == 0) return L4J_OK;
    p.numeric = args->numeric;
    p.zero_grads = args->flags & L4J_ADAMW_ZERO_GRADS;
    p.fault = fault_of(queue);
    L4J_CUDA("adamw_step", write_tables(queue, args, p));
    L4J_CUDA("adamw_step",
             launch(queue, adamw_norm_kernel, dim3(blocks(p.block_count * kLanes, kThreads)), kThreads, 0, p));
    L4J_CUDA("adamw_step", launch(queue, adamw_prepare_kernel, 1, kThreads, 0, p));
    L4J_CUDA("adamw_step",
             launch(queue, adamw_update_kernel, dim3(static_cast<unsigned>(p.block_count)), kThreads, 0, p));
    return L4J_OK;
}

} // namespace l4j
