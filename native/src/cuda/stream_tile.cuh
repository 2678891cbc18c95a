/* What the kernels of lora_stream.cuh share: loads, fragments that are turned in registers, masks of eight neighbours. */
#pragma once

#include "lora_stream.cuh"

#include <type_traits>

namespace l4j {

/* Eight neighbours of a row, two in a word. */
struct Vector8 {
    uint32_t w[4];
};
/* Zeros, and nothing is read, where they are not there. */
__device__ inline Vector8 load_vector(const char *from, bool there) {
    Vector8 v = {};
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %5, 0;\n @p ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n}\n"
                 : "+r"(v.w[0]), "+r"(v.w[1]), "+r"(v.w[2]), "+r"(v.w[3])
                 : "l"(from), "r"(static_cast<int>(there)));
    return v;
}
/* An activation passes once and leaves the first cache to the adapter. */
__device__ inline Vector8 load_activation(const char *from, bool there) {
    Vector8 v = {};
    asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %5, 0;\n"
                 " @p ld.global.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];\n}\n"
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
__device__ inline char *at(const View &v, int64_t row, int64_t column) { return v.data + (row * v.s0 + column) * 2; }

/* The rows and columns that a thread takes of a warp's tile, four times eight neighbours; where they lie in shared memory, so that eight
   threads that read at once do not meet in a bank. */
struct ByRows { /* rows quad and quad + 8 from end to end: the contraction runs over columns */
    __device__ static int row(int i) { return threadIdx.x % 32 / 4 + i / 2 * 8; }
    __device__ static int chunk(int i) { return threadIdx.x % 4 + i % 2 * 4; }
    __device__ static int spread(int row) { return row % 2 * 4; }
};
struct ByColumns { /* rows 2t, 2t + 1, 2t + 8, 2t + 9 of eight columns: the contraction runs over rows */
    __device__ static int row(int i) { return threadIdx.x % 4 * 2 + i % 2 + i / 2 * 8; }
    __device__ static int chunk(int) { return threadIdx.x % 32 / 4; }
    __device__ static int spread(int row) { return row & 6; }
};

constexpr int kTileRows = 16, kStrip = 64; /* rows and columns of a warp's tile */

/* Tiles of an activation, one after another down its rows: STAGES - 1 are on their way to the warp's own part of shared memory while one is worked on. */
template <class Map, int STEP, int STAGES, int WARPS> class Tiles {
    static constexpr int kTile = kTileRows * kStrip * 2; /* bytes */

public:
    static constexpr size_t kBytes = static_cast<size_t>(kTile) * STAGES * WARPS;

    /* The first tile begins at (row, column) of [rows, columns]; the next one STEP rows further down. */
    __device__ Tiles(void *shared, const View &v, int64_t row, int64_t column, int64_t rows, int64_t columns)
        : stage_(0), ld_(v.s0 * 2), left_(static_cast<int>(rows - row)) {
        int lane = threadIdx.x % 32, r = lane / 8, c = lane % 8;
        shared_ = shared_address(shared) + threadIdx.x / 32 * (kTile * STAGES);
        from_ = at(v, row + r, column + 8 * c);
        left_ = 8 * c < columns - column ? left_ - r : 0;
#pragma unroll
        for (int i = 0; i < STAGES - 1; i++) ask(i);
    }
    __device__ void take(Vector8 (&v)[4]) {
        wait<STAGES - 2>();
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];\n"
                         : "=r"(v[i].w[0]), "=r"(v[i].w[1]), "=r"(v[i].w[2]), "=r"(v[i].w[3])
                         : "r"(place(stage_, Map::row(i), Map::chunk(i))));
        }
        ask(stage_ ? stage_ - 1 : STAGES - 1); /* whose tile every thread has taken before */
        stage_ = stage_ + 1 == STAGES ? 0 : stage_ + 1;
    }

private:
    const char *from_;
    uint32_t shared_;
    int stage_;
    int64_t ld_;
    int left_;

    __device__ uint32_t place(int stage, int row, int chunk) const {
        return shared_ + static_cast<uint32_t>(stage * kTile + row * (kStrip * 2) + (chunk ^ Map::spread(row)) * 16);
    }
    __device__ void ask(int stage) {
        int lane = threadIdx.x % 32, r = lane / 8, c = lane % 8;
#pragma unroll
        for (int i = 0; i < 4; i++) copy16(place(stage, 4 * i + r, c), from_ + 4 * i * ld_, 4 * i < left_);
        commit();
        from_ += STEP * ld_;
        left_ -= STEP;
    }
};

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
