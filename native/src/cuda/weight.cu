/*
 * Base weights on a GPU. Dense ones: checked, copied where the weight owns them. Quantized ones: a copy of their parts in the layout that
 * codes.cuh reads, every value decoded once to see that it is finite:
 *   NF4, FP4, LLM_INT8, INT8, FP8_E4M3   as given
 *   GPTQ, AWQ                            turned round: L4J_INT4_ROWS
 *   GGUF                                 blocks of 2 + 32 · bits / 8 bytes get two bytes of padding behind their fp16 (MXFP4 three behind its
 *                                        exponent), blocks of Q3_K and Q6_K two at their end: so that codes lie at whole words
 */
#include "decode_rows.cuh"
#include "operations.cuh"

namespace l4j {

__global__ void nonfinite_kernel(View w, int64_t rows, int64_t cols, unsigned long long *first) {
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        for (int64_t k = threadIdx.x; k < cols; k += blockDim.x) {
            if (!isfinite(read(w, n, k))) atomicMin(first, static_cast<unsigned long long>(n * cols + k));
        }
    }
}

/* The lowest index n · cols + k of a NaN or Inf, or -1. Waits. */
static cudaError_t find_nonfinite(const View &w, int64_t rows, int64_t cols, int64_t *first) {
    unsigned long long *lowest, found = ~0ull;
    cudaError_t status = cudaMalloc(&lowest, sizeof *lowest);
    if (status != cudaSuccess) return status;
    status = cudaMemcpy(lowest, &found, sizeof found, cudaMemcpyHostToDevice);
    if (status == cudaSuccess) {
        unsigned grid = rows < 4096 ? static_cast<unsigned>(rows) : 4096;
        nonfinite_kernel<<<grid, 256>>>(w, rows, cols, lowest);
        status = cudaMemcpy(&found, lowest, sizeof found, cudaMemcpyDeviceToHost);
    }
    cudaFree(lowest);
    *first = found == ~0ull ? -1 : static_cast<int64_t>(found);
    return status;
}

/* A packed weight has rows of a multiple of 16 bytes, so that any K can be copied by cp.async. */
l4j_status weight_create(l4j_weight *w, const l4j_tensor *values, bool check, int64_t *first, l4j_error *error) {
    Guard guard(w->device->id);
    size_t size = static_cast<size_t>(element_bytes(w->dtype));
    if (w->mode == L4J_WEIGHT_PACK) {
        int64_t ld = (w->cols + 7) / 8 * 8;
        size_t bytes = static_cast<size_t>(w->rows * ld) * size;
        cudaError_t status = cudaMalloc(&w->owned, bytes);
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            return l4j_fail(error, L4J_ENOMEM, "weight_create: no memory for %zu bytes on GPU %d", bytes,
                            w->device->id);
        }
        L4J_CUDA("weight_create", status);
        status = cudaMemcpy2D(w->owned, static_cast<size_t>(ld) * size, values->data,
                              static_cast<size_t>(values->stride[0]) * size, static_cast<size_t>(w->cols) * size,
                              static_cast<size_t>(w->rows), cudaMemcpyDefault);
        if (status != cudaSuccess) {
            cudaFree(w->owned);
            w->owned = nullptr;
            return fail(error, "weight_create", status);
        }
        w->data = w->owned;
        w->row_stride = ld;
        w->bytes_held = static_cast<int64_t>(bytes);
    }
    cudaError_t status = check ? find_nonfinite(view(w), w->rows, w->cols, first) : cudaSuccess;
    if (w->owned && (status != cudaSuccess || *first >= 0)) {
        cudaFree(w->owned);
        w->owned = nullptr;
    }
    L4J_CUDA("weight_create", status);
    return L4J_OK;
}

/* ---- quantized weights ---- */

/* Memory of the GPU until it is taken. */
class Owned {
public:
    Owned() = default;
    Owned(const Owned &) = delete;
    ~Owned() { cudaFree(memory_); }
    l4j_status allocate(const l4j_weight *w, int64_t bytes, l4j_error *error) {
        cudaError_t status = cudaMalloc(&memory_, static_cast<size_t>(bytes));
        if (status == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            return l4j_fail(error, L4J_ENOMEM, "weight_create: no memory for %lld bytes on GPU %d",
                            static_cast<long long>(bytes), w->device->id);
        }
        L4J_CUDA("weight_create", status);
        bytes_ = bytes;
        return L4J_OK;
    }
    char *at(int64_t offset) const { return static_cast<char *>(memory_) + offset; }
    void give_to(l4j_weight *w) {
        w->owned = memory_;
        w->bytes_held = bytes_;
        memory_ = nullptr;
    }

private:
    void *memory_ = nullptr;
    int64_t bytes_ = 0;
};

static int64_t part_bytes(const l4j_tensor &t) {
    int64_t bytes = t.dtype == L4J_I64                         ? 8
                    : t.dtype == L4J_F32 || t.dtype == L4J_I32 ? 4
                    : t.dtype == L4J_I8 || t.dtype == L4J_U8   ? 1
                                                               : 2;
    for (int i = 0; i < t.ndim; i++) bytes *= t.shape[i];
    return bytes;
}
static int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* The parts side by side in the GPU's memory; what the weight notes of them points there. */
static l4j_status upload_parts(l4j_weight *w, const l4j_weight_options *options, Owned &memory, l4j_error *error) {
    int64_t size = 0;
    for (int32_t i = 0; i < options->part_count; i++) size += padded(part_bytes(options->part_values[i]));
    l4j_status status = memory.allocate(w, size, error);
    if (status != L4J_OK) return status;
    l4j_quant &q = w->quant;
    const void *values = q.values, *scales = q.scales, *zeros = q.zeros, *index = q.group_index, *map = q.nested_map,
               *nested = q.nested_scales;
    int64_t offset = 0;
    for (int32_t i = 0; i < options->part_count; i++) {
        const l4j_tensor &t = options->part_values[i];
        char *to = memory.at(offset);
        L4J_CUDA("weight_create", cudaMemcpy(to, t.data, static_cast<size_t>(part_bytes(t)), cudaMemcpyHostToDevice));
        offset += padded(part_bytes(t));
        if (t.data == values) q.values = to;
        if (t.data == scales) q.scales = to;
        if (t.data == zeros) q.zeros = reinterpret_cast<const int32_t *>(to);
        if (t.data == index) q.group_index = reinterpret_cast<const int32_t *>(to);
        if (t.data == map) q.nested_map = reinterpret_cast<const float *>(to);
        if (t.data == nested) q.nested_scales = reinterpret_cast<const float *>(to);
    }
    return L4J_OK;
}

/* ---- GPTQ and AWQ, turned round ---- */

constexpr int kTurnThreads = 256;

struct Turned {
    uint8_t *codes;
    float *scales;
    int8_t *zeros;
    int64_t row_bytes, groups;
};
/* Where row n % 8 lies in a word of eight rows: int4_shift of quant/int4.h. */
__device__ static int row_shift(const l4j_quant &q, int64_t n) {
    int row = static_cast<int>(n % 8);
    return 4 * (q.scheme == L4J_SCHEME_AWQ ? row / 2 + row % 2 * 4 : row);
}
__device__ static uint32_t code_at(const l4j_quant &q, int64_t n, int64_t k) {
    const uint32_t *words = static_cast<const uint32_t *>(q.values);
    if (q.scheme == L4J_SCHEME_AWQ) return words[k * q.zero_stride + n / 8] >> row_shift(q, n) & 15;
    return words[k / 8 * q.rows + n] >> k % 8 * 4 & 15;
}
__global__ void __launch_bounds__(kTurnThreads) turn_codes_kernel(const __grid_constant__ l4j_quant q, Turned to) {
    int64_t count = q.rows * to.row_bytes;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kTurnThreads + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * kTurnThreads) {
        int64_t n = i / to.row_bytes, k = i % to.row_bytes * 2;
        uint32_t low = k + 1 < q.cols ? code_at(q, n, k + 1) : 0;
        to.codes[i] = static_cast<uint8_t>(code_at(q, n, k) << 4 | low);
    }
}
__global__ void __launch_bounds__(kTurnThreads) turn_scales_kernel(const __grid_constant__ l4j_quant q, Turned to) {
    int64_t count = q.rows * to.groups;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kTurnThreads + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * kTurnThreads) {
        int64_t n = i / to.groups, g = i % to.groups;
        to.scales[i] = stored_scale(q, g * q.scale_stride + n);
        uint32_t word = static_cast<uint32_t>(q.zeros[g * q.zero_stride + n / 8]);
        to.zeros[i] = static_cast<int8_t>((word >> row_shift(q, n) & 15) + (q.scheme == L4J_SCHEME_GPTQ));
    }
}
static unsigned turn_grid(int64_t count) {
    int64_t grid = ceil_div(count, kTurnThreads);
    return static_cast<unsigned>(grid < 65536 ? grid : 65536);
}

static l4j_status turn_int4(l4j_weight *w, int64_t groups, Owned &memory, l4j_error *error) {
    l4j_quant &q = w->quant;
    int64_t row_bytes = (w->cols + 1) / 2, codes = padded(w->rows * row_bytes), scales = padded(w->rows * groups * 4),
            zeros = padded(w->rows * groups), index = q.group_index ? padded(w->cols * 4) : 0;
    l4j_status status = memory.allocate(w, codes + scales + zeros + index, error);
    if (status != L4J_OK) return status;
    Turned to = {reinterpret_cast<uint8_t *>(memory.at(0)), reinterpret_cast<float *>(memory.at(codes)),
                 reinterpret_cast<int8_t *>(memory.at(codes + scales)), row_bytes, groups};
    turn_codes_kernel<<<turn_grid(w->rows * row_bytes), kTurnThreads>>>(q, to);
    L4J_CUDA("weight_create", cudaGetLastError());
    turn_scales_kernel<<<turn_grid(w->rows * groups), kTurnThreads>>>(q, to);
    L4J_CUDA("weight_create", cudaGetLastError());
    if (index) {
        char *at = memory.at(codes + scales + zeros);
        L4J_CUDA("weight_create",
                 cudaMemcpy(at, q.group_index, static_cast<size_t>(w->cols * 4), cudaMemcpyDeviceToDevice));
        q.group_index = reinterpret_cast<const int32_t *>(at);
    }
    q.scheme = L4J_INT4_ROWS;
    q.values = to.codes;
    q.row_bytes = row_bytes;
    q.scales = to.scales;
    q.scale_dtype = L4J_F32;
    q.scale_stride = groups;
    q.row_zeros = to.zeros;
    q.zeros = nullptr;
    return L4J_OK;
}

/* ---- GGUF, blocks padded to whole words ---- */

struct Padding {
    int from, head, pad,
        to; /* bytes of a block as given; bytes before the padding; of padding; bytes of a block as kept */
};
static Padding padding_of(int32_t scheme) {
    switch (scheme) {
    case L4J_SCHEME_GGUF_Q4_0:
    case L4J_SCHEME_GGUF_IQ4_NL: return Padding{18, 2, 2, 20};
    case L4J_SCHEME_GGUF_Q5_0: return Padding{22, 2, 2, 24};
    case L4J_SCHEME_GGUF_Q8_0: return Padding{34, 2, 2, 36};
    case L4J_SCHEME_GGUF_MXFP4: return Padding{17, 1, 3, 20};
    case L4J_SCHEME_GGUF_Q3_K: return Padding{110, 110, 2, 112};
    case L4J_SCHEME_GGUF_Q6_K: return Padding{210, 210, 2, 212};
    default: return Padding{}; /* they are of whole words */
    }
}
__global__ void __launch_bounds__(kTurnThreads) pad_kernel(const uint8_t *from, uint8_t *to, int64_t count, Padding p) {
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kTurnThreads + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * kTurnThreads) {
        int64_t block = i / p.to;
        int at = static_cast<int>(i % p.to);
        bool zero = at >= p.head && at < p.head + p.pad;
        to[i] = zero ? 0 : from[block * p.from + at - (at < p.head ? 0 : p.pad)];
    }
}
static l4j_status pad_blocks(l4j_weight *w, const Padding &p, Owned &memory, l4j_error *error) {
    l4j_quant &q = w->quant;
    int64_t row_bytes = q.row_bytes / p.from * p.to, count = w->rows * row_bytes;
    l4j_status status = memory.allocate(w, count, error);
    if (status != L4J_OK) return status;
    uint8_t *to = reinterpret_cast<uint8_t *>(memory.at(0));
    pad_kernel<<<turn_grid(count), kTurnThreads>>>(static_cast<const uint8_t *>(q.values), to, count, p);
    L4J_CUDA("weight_create", cudaGetLastError());
    q.values = to;
    q.row_bytes = row_bytes;
    return L4J_OK;
}

/* ---- finiteness: as many rows at a time as fit into a scratch ---- */

constexpr int64_t kCheckBytes = int64_t(64) << 20;

static l4j_status check_values(l4j_weight *w, int64_t *first, l4j_error *error) {
    int64_t most = kCheckBytes / (w->cols * 4), rows = most < 1 ? 1 : most < w->rows ? most : w->rows;
    Owned scratch;
    l4j_status status = scratch.allocate(w, rows * w->cols * 4, error);
    if (status != L4J_OK) return status;
    Coded q = coded(w);
    View out = {scratch.at(0), w->cols, 1, 0, L4J_F32};
    *first = -1;
    for (int64_t n = 0; n < w->rows && *first < 0; n += rows) {
        int64_t here = w->rows - n < rows ? w->rows - n : rows;
        L4J_CUDA("weight_create", launch_decode(nullptr, q, RowRange{n, here, 0, w->cols, nullptr, nullptr}, out));
        L4J_CUDA("weight_create", find_nonfinite(out, here, w->cols, first));
        if (*first >= 0) *first += n * w->cols;
    }
    return L4J_OK;
}

l4j_status weight_create_coded(l4j_weight *w, const l4j_weight_options *options, bool check, int64_t *first,
                               l4j_error *error) {
    Guard guard(w->device->id);
    if (w->rows > INT32_MAX - 127 || w->rows * ((w->cols + kUnit - 1) / kUnit) > UINT32_MAX) {
        return l4j_fail(
            error, L4J_ENOTSUP,
            "weight_create: the weight has %lld x %lld values; expected less than 2^31 rows and 2^37 values "
            "on a GPU",
            static_cast<long long>(w->rows), static_cast<long long>(w->cols));
    }
    Owned given, kept;
    l4j_status status = upload_parts(w, options, given, error);
    Padding padding = padding_of(w->scheme);
    bool turned = w->quant.zeros != nullptr;
    if (status == L4J_OK && turned) {
        int64_t groups = 0;
        for (int32_t i = 0; i < options->part_count; i++) {
            if (options->part_roles[i] == L4J_ROLE_SCALES) groups = options->part_values[i].shape[0];
        }
        status = turn_int4(w, groups, kept, error);
    } else if (status == L4J_OK && padding.from) {
        status = pad_blocks(w, padding, kept, error);
    }
    if (status == L4J_OK && check) status = check_values(w, first, error);
    L4J_CUDA("weight_create", cudaDeviceSynchronize()); /* queues of their own may use it from now on */
    if (status == L4J_OK && *first < 0) (turned || padding.from ? kept : given).give_to(w);
    return status;
}

} // namespace l4j
