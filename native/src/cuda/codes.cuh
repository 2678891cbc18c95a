/*
 * Quantized weights on a GPU: how their codes become fp32 values, with the bits of src/quant/decode.h (each step rounded, nothing fused).
 * The unit is 32 columns of a row, as in GGUF's blocks; a thread decodes a unit or an octet of it, eight columns.
 *
 * A format is a struct with
 *   Head    what a unit's octets share, as it is loaded; head(q, n, u) loads that of unit u of row n
 *   kWords  words of codes of an octet; codes(q, n, u, o, c) loads those of octet o, as they are
 *   unit    where it is there: the codes of a unit's four octets in loads of 16 bytes
 *   kUnitBytes where it is there: unit u of all has its codes in bytes kUnitBytes · u on, octet o from byte octet_byte(o) of them on
 *   Scale   made of a Head by scale(q, head, u), once for a unit
 *   values  eight values of a Scale and the codes. Tables of sixteen values lie in the lanes of a warp: all lanes call it together.
 * Loading apart from decoding lets a kernel have many loads under way: Unit. Layout of the codes: weight.cu.
 */
#pragma once

#include "common.cuh"

namespace l4j {

constexpr int kUnit = 32;

/* A weight's codes in the GPU's memory. */
struct Coded : l4j_quant {
    int32_t shift, nested_shift; /* NF4, FP4: blocks are of 2^shift units, nested ones of 2^nested_shift blocks */
    /* Of a weight in units: */
    uint32_t row_units, group_units,
        group_reciprocal; /* of a row; of a group of columns; 2^32 / group_units, rounded up */
};
inline Coded coded(const l4j_weight *w) {
    Coded c = {};
    static_cast<l4j_quant &>(c) = w->quant;
    while (c.block > int64_t(kUnit) << c.shift) c.shift++;
    while (c.nested_block > int64_t(1) << c.nested_shift) c.nested_shift++;
    c.row_units = static_cast<uint32_t>(c.cols / kUnit);
    c.group_units = c.block >= kUnit ? static_cast<uint32_t>(c.block / kUnit) : 1;
    c.group_reciprocal = static_cast<uint32_t>(((uint64_t(1) << 32) + c.group_units - 1) / c.group_units);
    return c;
}
inline bool is_coded(const l4j_weight *w) { return w->layout == L4J_LAYOUT_CODES; }
/* Whether every unit lies within one block, one group and one row, at an address of whole words. */
inline bool in_units(const l4j_quant &q) {
    return q.scheme > 256 || (q.cols % kUnit == 0 && q.cols / kUnit < 65536 && q.block % kUnit == 0 && !q.group_index);
}

__device__ inline const uint8_t *bytes_of(const l4j_quant &q) { return static_cast<const uint8_t *>(q.values); }
__device__ inline uint32_t word_at(const uint8_t *p) { return __ldg(reinterpret_cast<const uint32_t *>(p)); }
/* 16 bytes that nobody else reads soon. */
__device__ inline uint4 stream16(const uint8_t *p) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(p));
    return v;
}
__device__ inline float half_value(uint32_t bits) {
    return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}
__device__ inline float stored_scale(const l4j_quant &q, int64_t i) {
    return read(static_cast<const char *>(q.scales), q.scale_dtype, i);
}

/* Unit u of row n of all units; the group of columns that unit u is in. */
__device__ inline uint32_t unit_of(const Coded &q, int64_t n, int u) {
    return static_cast<uint32_t>(n) * q.row_units + static_cast<uint32_t>(u);
}
__device__ inline uint32_t group_of(const Coded &q, int u) {
    uint32_t group = __umulhi(static_cast<uint32_t>(u), q.group_reciprocal); /* exact: both are below 2^16 */
    return q.group_units == 1 ? static_cast<uint32_t>(u) : group;
}

/* Byte i of a word as an unsigned number, less a whole number: exact, and no slow conversion. */
__device__ inline float byte_value(uint32_t word, int i, float less) {
    return __uint_as_float(__byte_perm(word, 0x4B000000u, 0x7440u + static_cast<unsigned>(i))) - (8388608.0f + less);
}
/* Eight bytes times d, plus m where there is one. */
__device__ inline void bytes_times(uint32_t low, uint32_t high, float less, float d, float (&w)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = byte_value(i < 4 ? low : high, i % 4, less) * d;
}
__device__ inline void bytes_times_plus(uint32_t low, uint32_t high, float d, float m, float (&w)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = byte_value(i < 4 ? low : high, i % 4, 0.0f) * d + m;
}
/* Bit `bit` of every byte of a word, at place `to` of the byte. */
__device__ inline uint32_t bit_of_bytes(uint32_t word, int bit, int to) { return (word >> bit & 0x01010101u) << to; }
/* Bits 0 to 3 of `bits` as the bytes of a word, 0 or 16 each. */
__device__ inline uint32_t spread16(uint32_t bits) {
    return (bits & 1) << 4 | (bits & 2) << 11 | (bits & 4) << 18 | (bits & 8) << 25;
}

/* Entry `code` % 16 of the table whose entry i lane i has. */
__device__ inline float look_up(float table, uint32_t code) {
    return __shfl_sync(0xFFFFFFFFu, table, static_cast<int>(code), 16);
}

/* A unit under way. */
template <class Format> struct Unit {
    typename Format::Head head;
    uint32_t codes[4][Format::kWords];

    __device__ void load(const Coded &q, int64_t n, int u) {
        head = Format::head(q, n, u);
        if constexpr (requires { Format::unit(q, n, u, codes); }) {
            Format::unit(q, n, u, codes);
        } else {
#pragma unroll
            for (int o = 0; o < 4; o++) Format::codes(q, n, u, o, codes[o]);
        }
    }
};
__device__ inline void nibble_unit(const uint8_t *p, uint32_t (&c)[4][1]) {
    uint4 v = stream16(p);
    c[0][0] = v.x;
    c[1][0] = v.y;
    c[2][0] = v.z;
    c[3][0] = v.w;
}

/* ---- bitsandbytes ---- */

struct Map4 {
    static constexpr int kWords = 1, kUnitBytes = 16;
    __host__ __device__ static constexpr int octet_byte(int o) { return o * 4; }
    struct Head {
        float scale; /* absmax, or the nested scale */
        uint32_t code;
    };
    struct Scale {
        float absmax, table;
    };
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        uint32_t block = unit_of(q, n, u) >> q.shift;
        if (!q.nested_map) return Head{__ldg(static_cast<const float *>(q.scales) + block), 0};
        return Head{__ldg(q.nested_scales + (block >> q.nested_shift)),
                    __ldg(static_cast<const uint8_t *>(q.scales) + block)};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[kWords]) {
        c[0] = word_at(bytes_of(q) + int64_t(kUnit / 2) * unit_of(q, n, u) + o * 4);
    }
    __device__ static void unit(const Coded &q, int64_t n, int u, uint32_t (&c)[4][kWords]) {
        nibble_unit(bytes_of(q) + int64_t(kUnit / 2) * unit_of(q, n, u), c);
    }
    __device__ static float absmax(const Coded &q, const Head &h) {
        if (!q.nested_map) return h.scale;
        float scaled = __ldg(q.nested_map + h.code) * h.scale;
        return scaled + q.nested_offset;
    }
    __device__ static Scale scale(const Coded &q, const Head &h, int) {
        return Scale{absmax(q, h), q.map[threadIdx.x % 16]};
    }
    /* Even columns are high nibbles. */
    __device__ static void values(const Scale &s, const uint32_t (&c)[kWords], int, int, float (&w)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++) w[i] = look_up(s.table, c[0] >> (i / 2 * 8 + (i % 2 ? 0 : 4))) * s.absmax;
    }
};

/* ---- integers and FP8 ---- */

struct One { /* a scale of a unit */
    float d;
};

template <int WORDS> struct Eight { /* codes of a byte each */
    static constexpr int kWords = WORDS, kUnitBytes = 32;
    __host__ __device__ static constexpr int octet_byte(int o) { return o * 8; }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[2]) {
        uint2 v = __ldg(reinterpret_cast<const uint2 *>(bytes_of(q) + int64_t(kUnit) * unit_of(q, n, u) + o * 8));
        c[0] = v.x;
        c[1] = v.y;
    }
    __device__ static void unit(const Coded &q, int64_t n, int u, uint32_t (&c)[4][2]) {
        const uint8_t *p = bytes_of(q) + int64_t(kUnit) * unit_of(q, n, u);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint4 v = stream16(p + i * 16);
            c[2 * i][0] = v.x;
            c[2 * i][1] = v.y;
            c[2 * i + 1][0] = v.z;
            c[2 * i + 1][1] = v.w;
        }
    }
};

struct LlmInt8 : Eight<2> {
    using Head = One;
    using Scale = One;
    __device__ static Head head(const Coded &q, int64_t n, int) {
        return Head{__ldg(static_cast<const float *>(q.scales) + n)};
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return h; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int, float (&w)[8]) {
        bytes_times(c[0] ^ 0x80808080u, c[1] ^ 0x80808080u, 128.0f, s.d, w);
#pragma unroll
        for (int i = 0; i < 8; i++) w[i] *= 7.874015718698502e-3f;
    }
};

struct Int8 : Eight<2> {
    using Head = One;
    using Scale = One;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        return Head{stored_scale(q, n * q.scale_stride + group_of(q, u))};
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return h; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int, float (&w)[8]) {
        bytes_times(c[0] ^ 0x80808080u, c[1] ^ 0x80808080u, 128.0f, s.d, w);
    }
};

__device__ inline float e4m3_value(uint32_t b) {
    float v = __uint_as_float((b & 0x7F) << 20) * 0x1p120f;
    uint32_t u = __float_as_uint(v) | (b & 0x80) << 24 | ((b & 0x7F) == 0x7F ? 0x7FC00000u : 0);
    return __uint_as_float(u);
}
struct Fp8 : Eight<2> {
    using Head = One;
    using Scale = One;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        int64_t row = q.block_rows == 1 ? n : static_cast<uint32_t>(n) / static_cast<uint32_t>(q.block_rows);
        return Head{stored_scale(q, row * q.scale_stride + group_of(q, u))};
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return h; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int, float (&w)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++) w[i] = e4m3_value(c[i / 4] >> i % 4 * 8 & 0xFF) * s.d;
    }
};

/* GPTQ and AWQ as a weight keeps them: L4J_INT4_ROWS. */
struct Int4 {
    static constexpr int kWords = 1, kUnitBytes = 16;
    __host__ __device__ static constexpr int octet_byte(int o) { return o * 4; }
    struct Head {
        float d;
        int32_t zero;
    };
    using Scale = Head;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        int64_t i = n * q.scale_stride + group_of(q, u);
        return Head{__ldg(static_cast<const float *>(q.scales) + i), __ldg(q.row_zeros + i)};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[kWords]) {
        c[0] = word_at(bytes_of(q) + int64_t(kUnit / 2) * unit_of(q, n, u) + o * 4);
    }
    __device__ static void unit(const Coded &q, int64_t n, int u, uint32_t (&c)[4][kWords]) {
        nibble_unit(bytes_of(q) + int64_t(kUnit / 2) * unit_of(q, n, u), c);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return h; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[kWords], int, int, float (&w)[8]) {
        uint32_t low = c[0] & 0x0F0F0F0Fu, high = c[0] >> 4 & 0x0F0F0F0Fu;
        float zero = static_cast<float>(s.zero);
#pragma unroll
        for (int i = 0; i < 8; i++) w[i] = byte_value(i % 2 ? low : high, i / 2, zero) * s.d;
    }
};

/* ---- GGUF's blocks of 32: a word or two of scales, then codes (weight.cu puts two bytes of padding behind a lone fp16) ---- */

template <int HEAD, int BYTES> struct Block32 {
    __device__ static const uint8_t *block(const Coded &q, int64_t n, int u) {
        return bytes_of(q) + int64_t(BYTES) * unit_of(q, n, u);
    }
    /* Nibbles of octet o: bytes 8 (o % 2) on, low ones first. */
    __device__ static void pair(const Coded &q, int64_t n, int u, int o, uint32_t &low, uint32_t &high) {
        const uint8_t *p = block(q, n, u) + HEAD + o % 2 * 8;
        low = word_at(p);
        high = word_at(p + 4);
    }
    __device__ static uint32_t nibbles(uint32_t word, int o) { return word >> o / 2 * 4 & 0x0F0F0F0Fu; }
};
template <int HEAD, int BYTES> struct Nibbles : Block32<HEAD, BYTES> {
    static constexpr int kWords = 2;
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[2]) {
        Block32<HEAD, BYTES>::pair(q, n, u, o, c[0], c[1]);
    }
};

struct Word { /* the first word of a block: fp16 d, and m in the high half where there is one */
    uint32_t dm;
};
struct Affine {
    float d, m;
};

struct Q4_0 : Nibbles<4, 20> {
    using Head = Word;
    using Scale = One;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return Scale{half_value(h.dm)}; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int o, float (&w)[8]) {
        bytes_times(nibbles(c[0], o), nibbles(c[1], o), 8.0f, s.d, w);
    }
};
struct Q4_1 : Nibbles<4, 20> {
    using Head = Word;
    using Scale = Affine;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static Scale scale(const Coded &, const Head &h, int) {
        return Scale{half_value(h.dm & 0xFFFF), half_value(h.dm >> 16)};
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int o, float (&w)[8]) {
        bytes_times_plus(nibbles(c[0], o), nibbles(c[1], o), s.d, s.m, w);
    }
};

/* The fifth bits: a word of them, bit j of value j. */
template <int HEAD, int BYTES> struct Fifth : Block32<HEAD, BYTES> {
    using Base = Block32<HEAD, BYTES>;
    static constexpr int kWords = 3;
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[3]) {
        Base::pair(q, n, u, o, c[0], c[1]);
        c[2] = word_at(Base::block(q, n, u) + HEAD - 4);
    }
    __device__ static uint32_t low(const uint32_t (&c)[3], int o) {
        return Base::nibbles(c[0], o) | spread16(c[2] >> o * 8);
    }
    __device__ static uint32_t high(const uint32_t (&c)[3], int o) {
        return Base::nibbles(c[1], o) | spread16(c[2] >> (o * 8 + 4));
    }
};
struct Q5_0 : Fifth<8, 24> {
    using Head = Word;
    using Scale = One;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return Scale{half_value(h.dm)}; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[3], int, int o, float (&w)[8]) {
        bytes_times(low(c, o), high(c, o), 16.0f, s.d, w);
    }
};
struct Q5_1 : Fifth<8, 24> {
    using Head = Word;
    using Scale = Affine;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static Scale scale(const Coded &, const Head &h, int) {
        return Scale{half_value(h.dm & 0xFFFF), half_value(h.dm >> 16)};
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[3], int, int o, float (&w)[8]) {
        bytes_times_plus(low(c, o), high(c, o), s.d, s.m, w);
    }
};

struct Q8_0 : Block32<4, 36> {
    static constexpr int kWords = 2;
    using Head = Word;
    using Scale = One;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[2]) {
        const uint8_t *p = block(q, n, u) + 4 + o * 8;
        c[0] = word_at(p);
        c[1] = word_at(p + 4);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) { return Scale{half_value(h.dm)}; }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int, float (&w)[8]) {
        bytes_times(c[0] ^ 0x80808080u, c[1] ^ 0x80808080u, 128.0f, s.d, w);
    }
};

/* Codes are indices of a table: its entry i in lane i. */
struct Tabled {
    float d, table;
};
__device__ inline void table_values(const Tabled &s, const uint32_t (&c)[2], int o, float (&w)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = look_up(s.table, c[i / 4] >> (i % 4 * 8 + o / 2 * 4)) * s.d;
}
__device__ constexpr int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
struct Iq4Nl : Nibbles<4, 20> {
    using Head = Word;
    using Scale = Tabled;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static Scale scale(const Coded &, const Head &h, int) {
        return Scale{half_value(h.dm), static_cast<float>(kIq4[threadIdx.x % 16])};
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int o, float (&w)[8]) {
        table_values(s, c, o, w);
    }
};
__device__ constexpr int8_t kE2m1[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                         0, -1, -2, -3, -4, -6, -8, -12}; /* twice the values */
struct Mxfp4 : Nibbles<4, 20> {
    using Head = Word;
    using Scale = Tabled;
    __device__ static Head head(const Coded &q, int64_t n, int u) { return Head{word_at(block(q, n, u))}; }
    __device__ static Scale scale(const Coded &, const Head &h, int) {
        uint32_t e = h.dm & 0xFF;
        float half = __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
        return Scale{half, static_cast<float>(kE2m1[threadIdx.x % 16])};
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int, int o, float (&w)[8]) {
        table_values(s, c, o, w);
    }
};

} // namespace l4j

#include "codes_k.cuh"
