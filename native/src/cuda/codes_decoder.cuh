/*
 * How blocks that live long decode: as the format does, except for NF4 and FP4. There the lanes' table costs a shuffle and a shift a
 * code; a table in shared memory has both values of a byte at once: entry b at 128 · b, and in it a copy for each lane of half a warp
 * (whose 8 bytes each are one access), so that lanes meet in no bank.
 */
#pragma once

#include "codes.cuh"
#include "tile.cuh"

namespace l4j {

/* A value that stays in its register: the compiler would compute it anew in every step. */
__device__ inline uint32_t held(uint32_t v) {
    asm volatile("" : "+r"(v));
    return v;
}
__device__ inline int held(int v) {
    asm volatile("" : "+r"(v));
    return v;
}
__device__ inline const char *held(const char *v) {
    asm volatile("" : "+l"(v));
    return v;
}

template <class Format> struct Decoder {
    using Scale = typename Format::Scale;
    static constexpr size_t kShared = 0;

    /* All threads of the block; a barrier follows before values. */
    __device__ Decoder(const Coded &, void *) {}
    __device__ Scale scale(const Coded &q, const typename Format::Head &h, int u) const {
        return Format::scale(q, h, u);
    }
    __device__ void values(const Scale &s, const uint32_t (&c)[Format::kWords], int u, int o, float (&w)[8]) const {
        Format::values(s, c, u, o, w);
    }
};

template <> struct Decoder<Map4> {
    using Scale = float;
    static constexpr size_t kShared = 256 * 128;
    uint32_t copy; /* the lane's, of entry 0: an address in shared memory */

    __device__ Decoder(const Coded &q, void *shared) {
        copy = held(shared_address(shared) + threadIdx.x % 16 * 8);
        for (uint32_t b = threadIdx.x; b < 256; b += blockDim.x) {
            float high = q.map[b >> 4], low = q.map[b & 15];
            float4 *entry = reinterpret_cast<float4 *>(static_cast<char *>(shared) + b * 128);
#pragma unroll
            for (uint32_t i = 0; i < 8; i++) entry[(i + b) % 8] = make_float4(high, low, high, low);
        }
    }
    __device__ Scale scale(const Coded &q, const Map4::Head &h, int) const { return Map4::absmax(q, h); }
    /* Even columns are high nibbles. */
    __device__ void values(Scale absmax, const uint32_t (&c)[1], int, int, float (&w)[8]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float high, low;
            uint32_t at = __dp4a(c[0], 128u << 8 * i, copy); /* 128 times byte i, added */
            asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(high), "=f"(low) : "r"(at));
            w[2 * i] = high * absmax;
            w[2 * i + 1] = low * absmax;
        }
    }
};

} // namespace l4j
