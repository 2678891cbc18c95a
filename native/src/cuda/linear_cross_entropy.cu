/*
 * linear_cross_entropy_forward: for a chunk of rows the logits (fp32), their softmax, and the gradient of x. The gradient of the logits
 * is kept without the row's weight, which the second product applies in fp32: it may be too small for 16 bits.
 */
#include "exp.cuh"
#include "lora_codes.cuh"
#include "operations.cuh"

namespace l4j {

constexpr int kSoftmaxThreads = 512;
constexpr int64_t kLogitBytes = int64_t(256) << 20; /* of fp32 logits at most, unless 128 rows have more */

struct LceParams {
    View z, dz; /* [chunk, V] */
    View loss, lse;
    const int32_t *targets;
    const float *row_weight, *grad_scale;
    float *scale; /* workspace [M]: of dx */
    int32_t *predicted;
    int64_t first, V;
    int32_t ignore_index;
    bool gradient;
    Fault *fault;
};

struct Largest {
    float value;
    int64_t index;
};
__device__ static Largest larger(Largest a, Largest b) {
    bool second = b.value > a.value || (b.value == a.value && b.index < a.index);
    return second ? b : a;
}

__global__ void __launch_bounds__(kSoftmaxThreads) softmax_kernel(const __grid_constant__ LceParams p) {
    __shared__ float scratch[32];
    __shared__ Largest best_of[kSoftmaxThreads / 32];
    int64_t row = blockIdx.x, m = p.first + row;
    int t = threadIdx.x;
    int32_t target = p.targets[m];
    bool ignored = target == p.ignore_index;
    if (!ignored && (target < 0 || target >= p.V)) {
        if (t == 0) report(p.fault, kBadTarget, m, target, p.V - 1);
        ignored = true;
    }
    if (t == 0) {
        p.scale[m] = ignored ? 0.0f : (p.row_weight ? p.row_weight[m] : 1.0f) * (p.grad_scale ? *p.grad_scale : 1.0f);
    }
    if (ignored) {
        if (t == 0) {
            write(p.loss, m, 0.0f);
            write(p.lse, m, 0.0f);
            if (p.predicted) p.predicted[m] = -1;
        }
        for (int64_t v = t; v < p.V && p.gradient; v += kSoftmaxThreads) write(p.dz, row, v, 0.0f);
        return;
    }
    Largest best = {-__int_as_float(0x7F800000), p.V};
    for (int64_t v = t; v < p.V; v += kSoftmaxThreads) best = larger(best, Largest{read(p.z, row, v), v});
    for (int d = 16; d >= 1; d /= 2) {
        best = larger(
            best, Largest{__shfl_xor_sync(0xFFFFFFFFu, best.value, d), __shfl_xor_sync(0xFFFFFFFFu, best.index, d)});
    }
    if (t % 32 == 0) best_of[t / 32] = best;
    __syncthreads();
    for (int w = 0; w < kSoftmaxThreads / 32; w++) best = larger(best, best_of[w]);
    float max = best.value, sum = 0.0f;
    for (int64_t v = t; v < p.V; v += kSoftmaxThreads) sum += exact_exp(read(p.z, row, v) - max);
    sum = block_sum(sum, scratch);
    if (t == 0) {
        float log_sum = static_cast<float>(log(static_cast<double>(sum))),
              loss = log_sum + (max - read(p.z, row, target));
        write(p.loss, m, loss);
        write(p.lse, m, max + log_sum);
        if (p.predicted) p.predicted[m] = isfinite(loss) ? static_cast<int32_t>(best.index) : -1;
    }
    if (!p.gradient) return;
    __syncthreads(); /* dz may be z */
    float inverse = 1.0f / sum;
    for (int64_t v = t; v < p.V; v += kSoftmaxThreads) {
        float q = exact_exp(read(p.z, row, v) - max) * inverse;
        write(p.dz, row, v, v == target ? q - 1.0f : q);
    }
}

/* Reports the first row whose loss is not finite. */
__global__ void __launch_bounds__(kSoftmaxThreads)
    numeric_kernel(View loss, View lse, int64_t M, const int64_t *step, l4j_numeric_status *numeric) {
    __shared__ unsigned long long first;
    if (threadIdx.x == 0) first = ~0ull;
    __syncthreads();
    for (int64_t m = threadIdx.x; m < M; m += kSoftmaxThreads) {
        if (!isfinite(read(loss, m)) || !isfinite(read(lse, m))) atomicMin(&first, static_cast<unsigned long long>(m));
    }
    __syncthreads();
    if (threadIdx.x != 0 || first == ~0ull || numeric->operation != L4J_OP_NONE) return;
    numeric->step = step ? *step : 0;
    numeric->operation = L4J_OP_LINEAR_CROSS_ENTROPY;
    numeric->tensor = static_cast<int32_t>(first);
    numeric->group = 0;
    numeric->reserved = 0;
}

struct LcePlan {
    int64_t chunk, ld; /* rows of a chunk; columns of its logits */
    char *z, *dz;
    float *scale;
    char *scratch; /* of products with a quantized weight */
    size_t bytes;
};

/* What all products of a call have in common. */
static LoraParams product_of(const l4j_linear_cross_entropy *args) {
    LoraParams product = {};
    product.K = args->x->shape[1];
    product.projections = 1;
    product.adapters_aligned = true; /* there are none */
    product.projection[0].w = view(args->weight);
    product.projection[0].n = args->weight->rows;
    return product;
}

static LcePlan lay_out(const l4j_linear_cross_entropy *args, void *workspace) {
    LcePlan plan = {};
    int64_t M = args->x->shape[0], V = args->weight->rows;
    plan.ld = (V + 7) / 8 * 8;
    int64_t rows = kLogitBytes / (plan.ld * 4) / 128 * 128;
    if (rows < 128) rows = 128;
    plan.chunk = rows < M ? rows : M;
    l4j_arena arena = {static_cast<char *>(workspace), 0};
    size_t values = static_cast<size_t>(plan.chunk * plan.ld);
    plan.z = static_cast<char *>(l4j_take(&arena, values * 4));
    plan.dz = plan.z;
    if (args->dx && args->x->dtype != L4J_F32) plan.dz = static_cast<char *>(l4j_take(&arena, values * 2));
    plan.scale = static_cast<float *>(l4j_take(&arena, sizeof(float) * static_cast<size_t>(M)));
    LoraParams product = product_of(args);
    product.M = plan.chunk; /* the last chunk, which may be smaller, needs no more */
    Weights weights = {&args->weight, 1, nullptr, false};
    size_t forward = products_scratch(weights, product, false, args->x->dtype),
           backward = args->dx ? products_scratch(weights, product, true, args->x->dtype) : 0;
    plan.scratch = static_cast<char *>(l4j_take(&arena, forward > backward ? forward : backward));
    plan.bytes = arena.used;
    return plan;
}

static View rows_from(View v, int64_t first) {
    v.data += first * v.s0 * element_bytes(v.dtype);
    return v;
}

size_t linear_cross_entropy_forward_workspace(int, const l4j_linear_cross_entropy *args) {
    return lay_out(args, nullptr).bytes;
}

l4j_status linear_cross_entropy_forward(l4j_queue *queue, const l4j_linear_cross_entropy *args, void *workspace,
                                        l4j_error *error) {
    const char *op = "linear_cross_entropy_forward";
    LcePlan plan = lay_out(args, workspace);
    int64_t M = args->x->shape[0], V = args->weight->rows;
    int32_t dtype = args->x->dtype;
    bool gradient = args->dx && args->dx->data;
    LceParams p = {};
    p.z = View{plan.z, plan.ld, 1, 0, L4J_F32};
    p.dz = View{plan.dz, plan.ld, 1, 0, dtype};
    p.loss = view(args->loss);
    p.lse = view(args->lse);
    p.targets = args->targets;
    p.row_weight = args->row_weight;
    p.grad_scale = args->grad_scale;
    p.scale = plan.scale;
    p.predicted = args->predicted;
    p.V = V;
    p.ignore_index = args->ignore_index;
    p.gradient = gradient;
    p.fault = fault_of(queue);
    LoraParams product = product_of(args);
    product.fault = p.fault;
    Weights weights = {&args->weight, 1, plan.scratch, false};
    for (p.first = 0; p.first < M; p.first += plan.chunk) {
        product.M = M - p.first < plan.chunk ? M - p.first : plan.chunk;
        product.x = rows_from(view(args->x), p.first);
        product.projection[0].y = p.z;
        product.row_scale = nullptr;
        product.fold = 0;
        L4J_CUDA(op, launch_products(queue, product, weights, false, dtype));
        L4J_CUDA(op, launch(queue, softmax_kernel, dim3(static_cast<unsigned>(product.M)), kSoftmaxThreads, 0, p));
        if (!gradient) continue;
        product.projection[0].dy = p.dz;
        product.dx = rows_from(view(args->dx), p.first);
        product.row_scale = plan.scale + p.first;
        product.fold =
            dtype == L4J_F32 ? L4J_LCE_BLOCK : 0; /* as on the CPU: one chain over a vocabulary loses accuracy */
        L4J_CUDA(op, launch_products(queue, product, weights, true, dtype));
    }
    if (args->numeric && M > 0) {
        L4J_CUDA(op, launch(queue, numeric_kernel, 1, kSoftmaxThreads, 0, p.loss, p.lse, M, args->step, args->numeric));
    }
    return L4J_OK;
}

} // namespace l4j
