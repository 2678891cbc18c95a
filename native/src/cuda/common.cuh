/* What the CUDA operations share: views of tensors, conversions, launches, reports of wrong values. Compiled with -fmad=false: a
   fused multiply-add happens where the source says so, as on the CPU. */
#pragma once

#include "backend.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace l4j {

using bf16 = __nv_bfloat16;
using f16 = __half;

/* ---- views ---- */

/* A tensor's memory in at most three dimensions; strides in elements. */
struct View {
    char *data;
    int64_t s0, s1, s2;
    int32_t dtype;
};

inline View view(const l4j_tensor *t) {
    if (!t || !t->data) return View{};
    return View{static_cast<char *>(t->data), t->stride[0], t->ndim > 1 ? t->stride[1] : 0,
                t->ndim > 2 ? t->stride[2] : 0, t->dtype};
}
inline View view(const l4j_weight *w) {
    return View{static_cast<char *>(const_cast<void *>(w->data)), w->row_stride, 1, 0, w->dtype};
}

template <class T> constexpr int32_t kDtype = L4J_F32;
template <> constexpr int32_t kDtype<bf16> = L4J_BF16;
template <> constexpr int32_t kDtype<f16> = L4J_F16;

__host__ __device__ inline int element_bytes(int32_t dtype) { return dtype == L4J_F32 ? 4 : 2; }

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(f16 x) { return __half2float(x); }

template <class T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline f16 from_float<f16>(float x) { return __float2half_rn(x); }

/* Two neighbours, stored at once. */
template <class T> struct alignas(2 * sizeof(T)) Pair { T x, y; };
/* Two values rounded to T, the lower one first. */
template <class T> __device__ uint32_t packed(float low, float high);
template <> __device__ inline uint32_t packed<bf16>(float low, float high) {
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&v);
}
template <> __device__ inline uint32_t packed<f16>(float low, float high) {
    __half2 v = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&v);
}

/* Element `i` of stored floats of any dtype. */
__device__ inline float read(const char *data, int32_t dtype, int64_t i) {
    switch (dtype) {
    case L4J_BF16: return to_float(reinterpret_cast<const bf16 *>(data)[i]);
    case L4J_F16: return to_float(reinterpret_cast<const f16 *>(data)[i]);
    default: return reinterpret_cast<const float *>(data)[i];
    }
}
__device__ inline void write(char *data, int32_t dtype, int64_t i, float x) {
    switch (dtype) {
    case L4J_BF16: reinterpret_cast<bf16 *>(data)[i] = from_float<bf16>(x); break;
    case L4J_F16: reinterpret_cast<f16 *>(data)[i] = from_float<f16>(x); break;
    default: reinterpret_cast<float *>(data)[i] = x;
    }
}
__device__ inline float read(const View &v, int64_t i) { return read(v.data, v.dtype, i * v.s0); }
__device__ inline float read(const View &v, int64_t i, int64_t j) { return read(v.data, v.dtype, i * v.s0 + j * v.s1); }
__device__ inline float read(const View &v, int64_t i, int64_t j, int64_t k) {
    return read(v.data, v.dtype, i * v.s0 + j * v.s1 + k * v.s2);
}
__device__ inline void write(const View &v, int64_t i, float x) { write(v.data, v.dtype, i * v.s0, x); }
__device__ inline void write(const View &v, int64_t i, int64_t j, float x) {
    write(v.data, v.dtype, i * v.s0 + j * v.s1, x);
}
__device__ inline void write(const View &v, int64_t i, int64_t j, int64_t k, float x) {
    write(v.data, v.dtype, i * v.s0 + j * v.s1 + k * v.s2, x);
}

/* ---- values that are found wrong when the operation runs ---- */

enum FaultKind : int32_t {
    kNoFault = 0,
    kBadId,
    kBadPosition,
    kBadTarget,
    kBadSegmentCount,
    kBadSegmentOffset,
    kBadSegmentAdapter,
    kBadSegmentEnd,
    kBadScaling,
    kBadModule,
    kBadAdapterId,
    kBadOffsets,
    kBadKeys,
    kBadLength,
    kUnseen,
    kSharedKeys,
    kBadHyper,
    kNoDistribution,
};

/* In memory that host and GPU share; the first report stays until a synchronization reads it. */
struct Fault {
    int32_t kind; /* written last */
    int32_t taken;
    int64_t index, value, limit;
};

__device__ inline void report(Fault *fault, FaultKind kind, int64_t index, int64_t value, int64_t limit) {
    if (atomicCAS(&fault->taken, 0, 1) != 0) return;
    fault->index = index;
    fault->value = value;
    fault->limit = limit;
    __threadfence_system();
    fault->kind = kind;
}

/* ---- launches ---- */

/* Makes the device current and gives back the caller's. */
class Guard {
public:
    explicit Guard(int32_t id) : id_(id) {
        if (cudaGetDevice(&before_) != cudaSuccess) before_ = id;
        if (before_ != id) cudaSetDevice(id);
    }
    ~Guard() {
        if (before_ != id_) cudaSetDevice(before_);
    }
    Guard(const Guard &) = delete;

private:
    int32_t id_;
    int before_ = 0;
};

l4j_status fail(l4j_error *error, const char *what, cudaError_t cuda);

inline cudaStream_t stream_of(const l4j_queue *queue) { return static_cast<cudaStream_t>(queue->stream); }
inline Fault *fault_of(const l4j_queue *queue) { return static_cast<Fault *>(queue->fault); }

/* kernel<<<grid, block, shared>>>(args...) on the queue's stream; more than 48 KiB of shared memory are asked for. Nothing is launched
   for an empty grid. */
template <class... Params, class... Args>
cudaError_t launch(const l4j_queue *queue, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
                   Args... args) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    if (shared > 48 * 1024) {
        cudaError_t status =
            cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared));
        if (status != cudaSuccess) return status;
    }
    kernel<<<grid, block, shared, stream_of(queue)>>>(args...);
    return cudaGetLastError();
}

/* The same right after another kernel of the operation, whose end is not waited for: the kernel's first statement is await_previous(). It
   saves the launch's latency on sm_90 and newer. */
template <class... Params, class... Args>
cudaError_t launch_next(const l4j_queue *queue, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
                        Args... args) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    int major = 0;
    cudaError_t status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, queue->device->id);
    if (status != cudaSuccess) return status;
    if (major < 9) return launch(queue, kernel, grid, block, shared, args...);
    status = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared));
    if (status != cudaSuccess) return status;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream_of(queue);
    config.attrs = &early;
    config.numAttrs = 1;
    return cudaLaunchKernelEx(&config, kernel, args...);
}
/* Lets the next kernel's blocks come as soon as all of this one's have; waits until everything before is in memory. */
__device__ inline void await_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n griddepcontrol.wait;" ::: "memory");
#endif
}

#define L4J_CUDA(what, ...)                                               \
    do {                                                                  \
        cudaError_t cuda_ = (__VA_ARGS__);                                \
        if (cuda_ != cudaSuccess) return ::l4j::fail(error, what, cuda_); \
    } while (0)

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline unsigned blocks(int64_t n, int64_t per) { return static_cast<unsigned>(ceil_div(n, per)); }

/* Calls f with a value of the C++ type that a dtype stands for. */
template <class F> auto with_dtype(int32_t dtype, F f) {
    switch (dtype) {
    case L4J_BF16: return f(bf16());
    case L4J_F16: return f(f16());
    default: return f(float());
    }
}

/* ---- Philox4x32-10 and dropout: the bits of src/cpu/dropout.h ---- */

struct Philox {
    uint32_t w[4];
};
__device__ inline Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c2 = h0 ^ c3 ^ k1;
        c1 = l1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return Philox{{c0, c1, c2, c3}};
}

/* ---- sums in a fixed order ---- */

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset >= 1; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
    return x;
}
/* The sum over a block of at most 1024 threads, to all of them. `scratch` has 32 floats. */
__device__ inline float block_sum(float x, float *scratch) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

} // namespace l4j
