/* What the kernels of lora_stream.cuh share: loads, fragments that are turned in registers, masks of eight neighbours. */
#pragma once

#include "lora_stream.cuh"

#include <type_traits>

namespace l4j {

/* Eight neighbours of a row, two in a word. */
struct Vector8 {
    uint32_t w[4];
};
/*
 * What a thread has asked for of the tiles to come, VECTORS times 16 bytes of each: copied to places in shared memory that no other thread
 * touches, so that nobody waits for anybody. STAGES - 1 tiles are on their way while one is worked on.
 */
template <int VECTORS, int STAGES, int THREADS> class Ring {
public:
    static constexpr size_t kBytes = static_cast<size_t>(VECTORS) * STAGES * THREADS * 16;

    __device__ explicit Ring(void *shared) : first_(shared_address(shared) + threadIdx.x * 16), stage_(0) {}
    /* Vector i of the tile that is `ahead` behind the one to be taken. */
    __device__ void ask(int i, const char *from, bool there, int ahead) {
        int stage = stage_ + ahead;
        copy16(place(stage < STAGES ? stage : stage - STAGES, i), from, there);
    }
    /* The next tile is to be here. */
    __device__ void await() { wait<STAGES - 2>(); }
    __device__ Vector8 take(int i) const {
        Vector8 v;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];\n"
                     : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                     : "r"(place(stage_, i)));
        return v;
    }
    __device__ void next() { stage_ = stage_ + 1 == STAGES ? 0 : stage_ + 1; }

private:
    uint32_t first_;
    int stage_;

    __device__ uint32_t place(int stage, int i) const {
        return first_ + static_cast<uint32_t>(stage * VECTORS + i) * THREADS * 16;
    }
};

/* Zeros, and nothing is read, where they are not there. */
__device__ inline Vector8 load_vector(const char *from, bool there) {
    Vector8 v = {};
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %5, 0;\n @p ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n}\n"
                 : "+r"(v.w[0]), "+r"(v.w[1]), "+r"(v.w[2]), "+r"(v.w[3])
                 : "l"(from), "r"(static_cast<int>(there)));
    return v;
}
__device__ inline uint2 load_four(const char *from, bool there) {
    uint2 v = make_uint2(0, 0);
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %3, 0;\n @p ld.global.v2.b32 {%0, %1}, [%2];\n}\n"
                 : "+r"(v.x), "+r"(v.y)
                 : "l"(from), "r"(static_cast<int>(there)));
    return v;
}
__device__ inline uint32_t load_pair(const char *from, bool there) {
    uint32_t v = 0;
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %2, 0;\n @p ld.global.b32 %0, [%1];\n}\n"
                 : "+r"(v)
                 : "l"(from), "r"(static_cast<int>(there)));
    return v;
}
__device__ inline void store_vector(char *to, const Vector8 &v) {
    *reinterpret_cast<uint4 *>(to) = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
}
/* Element (row, column) of 16 bits. */
__device__ inline char *at(const View &v, int64_t row, int64_t column) {
    return v.data + (row * v.s0 + column) * 2;
}

/* An 8x8 matrix of 16-bit values that a warp holds, a row of it in four threads, becomes its transpose. */
__device__ inline uint32_t turned(uint32_t v) {
    uint32_t to;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(to) : "r"(v));
    return to;
}
/* The lower or the higher halves of two words. */
__device__ inline uint32_t halves(uint32_t a, uint32_t b, bool high) {
    return __byte_perm(a, b, high ? 0x7632 : 0x5410);
}

/* Words that keep what dropout keeps of eight neighbours, which are part `part` of four of block `block`. The four threads that have the
   parts, APART of each other in the warp, draw a quarter of the block each; all threads of the warp call it. */
template <int APART>
__device__ void keep_eight(const Dropout &drop, uint32_t token, int64_t block, int part, uint32_t (&keep)[4]) {
    Philox drawn = drop.bits(token, block, part);
#pragma unroll
    for (int apart = 1; apart <= 2; apart *= 2) {
        bool upper = part & apart;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & apart) continue;
            uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, upper ? drawn.w[i] : drawn.w[i + apart], apart * APART);
            drawn.w[i] = upper ? got : drawn.w[i];
            drawn.w[i + apart] = upper ? drawn.w[i + apart] : got;
        }
    }
    /* 16 bits are at least the threshold where the highest bit of both says so, or where it is equal and the rest does not borrow. */
    uint32_t threshold = drop.threshold << 16 | drop.threshold, low = threshold & 0x7FFF7FFFu;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t bits = drawn.w[i], rest = (bits | 0x80008000u) - low;
        uint32_t kept = (bits & ~threshold) | (~(bits ^ threshold) & rest);
        asm("prmt.b32 %0, %1, 0, 0xBB99;\n" : "=r"(keep[i]) : "r"(kept)); /* the highest bits all over their halves */
    }
}

/* Calls f with a value of the 16-bit type and the constant 1 or 2: tiles of 16 ranks. */
template <class F> cudaError_t with_stream(int32_t dtype, int32_t ranks, F f) {
    constexpr std::integral_constant<int, 1> one;
    constexpr std::integral_constant<int, 2> two;
    if (dtype == L4J_BF16) return ranks <= 16 ? f(bf16(), one) : f(bf16(), two);
    return ranks <= 16 ? f(f16(), one) : f(f16(), two);
}

} // namespace l4j
