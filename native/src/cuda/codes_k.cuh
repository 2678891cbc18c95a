/* GGUF's super-blocks of 256 values, eight units: src/quant/gguf_k_blocks.h for a GPU. */
#pragma once

namespace l4j {

template <int BYTES> struct Block256 {
    __device__ static const uint8_t *block(const Coded &q, int64_t n, int u) {
        return bytes_of(q) + int64_t(BYTES) * (unit_of(q, n, u) / 8);
    }
    __device__ static void pair(const uint8_t *p, uint32_t *c) {
        if constexpr (BYTES % 8 == 0) {
            uint2 v = __ldg(reinterpret_cast<const uint2 *>(p));
            c[0] = v.x;
            c[1] = v.y;
        } else {
            c[0] = word_at(p);
            c[1] = word_at(p + 4);
        }
    }
    /* Words first and first + 1 of each octet of a unit, where blocks lie at multiples of 16 bytes. */
    template <int WORDS> __device__ static void quads(const uint8_t *p, int first, uint32_t (&c)[4][WORDS]) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint4 v = __ldg(reinterpret_cast<const uint4 *>(p + 16 * i));
            c[2 * i][first] = v.x;
            c[2 * i][first + 1] = v.y;
            c[2 * i + 1][first] = v.z;
            c[2 * i + 1][first + 1] = v.w;
        }
    }
};
/* A scale, or a scale and a minimum, for each half of a unit. */
struct Halves {
    float d[2];
};
struct AffineHalves {
    float d[2], m[2];
};

struct Q2_K : Block256<84> {
    static constexpr int kWords = 2;
    struct Head {
        uint32_t dm, scales; /* of the two halves, a byte each */
    };
    using Scale = AffineHalves;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        const uint8_t *b = block(q, n, u);
        return Head{word_at(b + 80), word_at(b + u % 8 / 2 * 4) >> u % 2 * 16};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[2]) {
        pair(block(q, n, u) + 16 + u % 8 / 4 * 32 + o * 8, c);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) {
        Scale s;
        float d = half_value(h.dm & 0xFFFF), dmin = half_value(h.dm >> 16);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            s.d[i] = d * static_cast<float>(h.scales >> 8 * i & 15);
            s.m[i] = -(dmin * static_cast<float>(h.scales >> (8 * i + 4) & 15));
        }
        return s;
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int u, int o, float (&w)[8]) {
        uint32_t low = c[0] >> u % 4 * 2 & 0x03030303u, high = c[1] >> u % 4 * 2 & 0x03030303u;
        bytes_times_plus(low, high, o < 2 ? s.d[0] : s.d[1], o < 2 ? s.m[0] : s.m[1], w);
    }
};

struct Q3_K : Block256<112> {
    static constexpr int kWords = 4;
    struct Head {
        uint32_t d, low, high; /* words of the scales: of low nibbles, of high two bits */
    };
    using Scale = Halves;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        const uint8_t *b = block(q, n, u);
        int j = u % 8 * 2; /* scales j and j + 1 */
        return Head{word_at(b + 108), word_at(b + 96 + j % 8 / 4 * 4) >> j % 4 * 8, word_at(b + 104) >> j % 4 * 8};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[4]) {
        const uint8_t *b = block(q, n, u);
        pair(b + 32 + u % 8 / 4 * 32 + o * 8, c);
        pair(b + o * 8, c + 2);
    }
    __device__ static void unit(const Coded &q, int64_t n, int u, uint32_t (&c)[4][4]) {
        const uint8_t *b = block(q, n, u);
        quads(b + 32 + u % 8 / 4 * 32, 0, c);
        quads(b, 2, c);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int u) {
        Scale s;
        float d = half_value(h.d & 0xFFFF);
        int j = u % 8 * 2;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t low = h.low >> (8 * i + (j < 8 ? 0 : 4)) & 15, high = h.high >> (8 * i + j / 4 * 2) & 3;
            s.d[i] = d * static_cast<float>(static_cast<int>(low | high << 4) - 32);
        }
        return s;
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[4], int u, int o, float (&w)[8]) {
        uint32_t low = (c[0] >> u % 4 * 2 & 0x03030303u) | bit_of_bytes(c[2], u % 8, 2);
        uint32_t high = (c[1] >> u % 4 * 2 & 0x03030303u) | bit_of_bytes(c[3], u % 8, 2);
        bytes_times(low, high, 4.0f, o < 2 ? s.d[0] : s.d[1], w);
    }
};

/* d, dmin and the twelve bytes of eight six-bit scales and minima. */
struct SixBits {
    uint4 word;
    __device__ Affine of(int j) const {
        uint32_t a = word.y >> j % 4 * 8, b = word.z >> j % 4 * 8, c = word.w >> j % 4 * 8;
        uint32_t scale = j < 4 ? a & 63 : (c & 15) | (a >> 6 & 3) << 4;
        uint32_t least = j < 4 ? b & 63 : (c >> 4 & 15) | (b >> 6 & 3) << 4;
        float d = half_value(word.x & 0xFFFF), dmin = half_value(word.x >> 16);
        return Affine{d * static_cast<float>(scale), -(dmin * static_cast<float>(least))};
    }
};

struct Q4_K : Block256<144> {
    static constexpr int kWords = 2;
    using Head = SixBits;
    using Scale = Affine;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        return Head{__ldg(reinterpret_cast<const uint4 *>(block(q, n, u)))};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[2]) {
        pair(block(q, n, u) + 16 + u % 8 / 2 * 32 + o * 8, c);
    }
    __device__ static void unit(const Coded &q, int64_t n, int u, uint32_t (&c)[4][2]) {
        quads(block(q, n, u) + 16 + u % 8 / 2 * 32, 0, c);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int u) { return h.of(u % 8); }
    __device__ static void values(const Scale &s, const uint32_t (&c)[2], int u, int, float (&w)[8]) {
        bytes_times_plus(c[0] >> u % 2 * 4 & 0x0F0F0F0Fu, c[1] >> u % 2 * 4 & 0x0F0F0F0Fu, s.d, s.m, w);
    }
};

struct Q5_K : Block256<176> {
    static constexpr int kWords = 4;
    using Head = SixBits;
    using Scale = Affine;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        return Head{__ldg(reinterpret_cast<const uint4 *>(block(q, n, u)))};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[4]) {
        const uint8_t *b = block(q, n, u);
        pair(b + 48 + u % 8 / 2 * 32 + o * 8, c);
        pair(b + 16 + o * 8, c + 2);
    }
    __device__ static void unit(const Coded &q, int64_t n, int u, uint32_t (&c)[4][4]) {
        const uint8_t *b = block(q, n, u);
        quads(b + 48 + u % 8 / 2 * 32, 0, c);
        quads(b + 16, 2, c);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int u) { return h.of(u % 8); }
    __device__ static void values(const Scale &s, const uint32_t (&c)[4], int u, int, float (&w)[8]) {
        uint32_t low = (c[0] >> u % 2 * 4 & 0x0F0F0F0Fu) | bit_of_bytes(c[2], u % 8, 4);
        uint32_t high = (c[1] >> u % 2 * 4 & 0x0F0F0F0Fu) | bit_of_bytes(c[3], u % 8, 4);
        bytes_times_plus(low, high, s.d, s.m, w);
    }
};

struct Q6_K : Block256<212> {
    static constexpr int kWords = 4;
    struct Head {
        uint32_t d, scales; /* of the two halves, a signed byte each */
    };
    using Scale = Halves;
    __device__ static Head head(const Coded &q, int64_t n, int u) {
        const uint8_t *b = block(q, n, u);
        return Head{word_at(b + 208), word_at(b + 192 + u % 8 / 2 * 4) >> u % 2 * 16};
    }
    __device__ static void codes(const Coded &q, int64_t n, int u, int o, uint32_t (&c)[4]) {
        const uint8_t *b = block(q, n, u);
        int half = u % 8 / 4, part = u % 4;
        pair(b + half * 64 + part % 2 * 32 + o * 8, c);
        pair(b + 128 + half * 32 + o * 8, c + 2);
    }
    __device__ static Scale scale(const Coded &, const Head &h, int) {
        float d = half_value(h.d & 0xFFFF);
        return Scale{{d * static_cast<float>(static_cast<int8_t>(h.scales & 0xFF)),
                      d * static_cast<float>(static_cast<int8_t>(h.scales >> 8 & 0xFF))}};
    }
    __device__ static void values(const Scale &s, const uint32_t (&c)[4], int u, int o, float (&w)[8]) {
        int part = u % 4;
        uint32_t low = (c[0] >> part / 2 * 4 & 0x0F0F0F0Fu) | (c[2] >> part * 2 & 0x03030303u) << 4;
        uint32_t high = (c[1] >> part / 2 * 4 & 0x0F0F0F0Fu) | (c[3] >> part * 2 & 0x03030303u) << 4;
        bytes_times(low, high, 32.0f, o < 2 ? s.d[0] : s.d[1], w);
    }
};

/* Calls f with a value of the format that a weight in units has. */
template <class F> auto with_format(const l4j_quant &q, F f) {
    switch (q.scheme) {
    case L4J_SCHEME_LLM_INT8: return f(LlmInt8());
    case L4J_SCHEME_INT8: return f(Int8());
    case L4J_SCHEME_FP8_E4M3: return f(Fp8());
    case L4J_INT4_ROWS: return f(Int4());
    case L4J_SCHEME_GGUF_Q4_0: return f(Q4_0());
    case L4J_SCHEME_GGUF_Q4_1: return f(Q4_1());
    case L4J_SCHEME_GGUF_Q5_0: return f(Q5_0());
    case L4J_SCHEME_GGUF_Q5_1: return f(Q5_1());
    case L4J_SCHEME_GGUF_Q8_0: return f(Q8_0());
    case L4J_SCHEME_GGUF_Q2_K: return f(Q2_K());
    case L4J_SCHEME_GGUF_Q3_K: return f(Q3_K());
    case L4J_SCHEME_GGUF_Q4_K: return f(Q4_K());
    case L4J_SCHEME_GGUF_Q5_K: return f(Q5_K());
    case L4J_SCHEME_GGUF_Q6_K: return f(Q6_K());
    case L4J_SCHEME_GGUF_IQ4_NL: return f(Iq4Nl());
    case L4J_SCHEME_GGUF_MXFP4: return f(Mxfp4());
    default: return f(Map4()); /* NF4, FP4 */
    }
}

} // namespace l4j
