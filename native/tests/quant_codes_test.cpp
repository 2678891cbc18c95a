// Every code of every format under every edge scale: what the format's description says of it, computed here from the codes themselves.
#include "quant_case.h"

#include <sstream>

namespace {

using l4j::Parts;

// fp16: zero of both signs, smallest and largest subnormal, smallest normal, one, largest, ordinary, some of them negative.
const uint16_t kHalves[] = {0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF, 0x2E66, 0xAE66};
const size_t kScales = 10; // and as many in fp32
const float kFloats[] = {0.0f,  -0.0f,  0x1p-149f, -0x1.fffffcp-127f, 0x1p-126f, 1.0f, 0x1.fffffep127f,
                         -1.5f, 0.037f, -3e-5f};

double half(uint16_t u) {
    int e = (u >> 10) & 31, f = u & 1023;
    return (e ? std::ldexp(1024 + f, e - 25) : std::ldexp(f, -24)) * (u >> 15 ? -1 : 1);
}

float step(double exact) { return static_cast<float>(exact); } // each step of a description is rounded to fp32

struct Blocks {
    std::vector<uint8_t> bytes;
    std::vector<float> values;
    int64_t count = 0;

    void halves(std::initializer_list<uint16_t> all) {
        for (uint16_t h : all) bytes.push_back(static_cast<uint8_t>(h)), bytes.push_back(static_cast<uint8_t>(h >> 8));
    }
    void pairs(const int *low, const int *high, int n, int shift) {
        for (int j = 0; j < n; j++) bytes.push_back(static_cast<uint8_t>(low[j] | high[j] << shift));
    }
};

// ---- blocks of 32: d, sometimes m, sometimes the fifth bits, nibbles (value j low, j + 16 high)

// With a step of one every code comes to every place of a block.
void block32(int32_t scheme, uint16_t d, uint16_t m, int start, Blocks *out) {
    static const int iq4_nl[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    bool five = scheme == L4J_SCHEME_GGUF_Q5_0 || scheme == L4J_SCHEME_GGUF_Q5_1;
    bool eight = scheme == L4J_SCHEME_GGUF_Q8_0;
    bool minimum = scheme == L4J_SCHEME_GGUF_Q4_1 || scheme == L4J_SCHEME_GGUF_Q5_1;
    int q[32], nibble[32];
    uint32_t fifth = 0;
    for (int j = 0; j < 32; j++) {
        q[j] = (j + start) % (eight ? 256 : five ? 32 : 16);
        nibble[j] = q[j] & 15;
        fifth |= static_cast<uint32_t>(q[j] >> 4 & 1) << j;
        double scale = half(d), value = 0;
        switch (scheme) {
        case L4J_SCHEME_GGUF_Q4_0: value = (q[j] - 8) * scale; break;
        case L4J_SCHEME_GGUF_Q4_1:
        case L4J_SCHEME_GGUF_Q5_1: value = step(q[j] * scale) + half(m); break;
        case L4J_SCHEME_GGUF_Q5_0: value = (q[j] - 16) * scale; break;
        case L4J_SCHEME_GGUF_Q8_0: value = static_cast<int8_t>(q[j]) * scale; break;
        case L4J_SCHEME_GGUF_IQ4_NL: value = iq4_nl[q[j]] * scale; break;
        case L4J_SCHEME_GGUF_MXFP4: value = std::ldexp(e2m1[q[j] & 7] * (q[j] & 8 ? -1 : 1), d - 127); break;
        }
        out->values.push_back(step(value));
    }
    if (scheme == L4J_SCHEME_GGUF_MXFP4) {
        out->bytes.push_back(static_cast<uint8_t>(d));
    } else {
        out->halves({d});
    }
    if (minimum) out->halves({m});
    if (five) out->halves({static_cast<uint16_t>(fifth), static_cast<uint16_t>(fifth >> 16)});
    if (eight) {
        for (int code : q) out->bytes.push_back(static_cast<uint8_t>(code));
    } else {
        out->pairs(nibble, nibble + 16, 16, 4);
    }
    out->count++;
}

void blocks32(int32_t scheme, Blocks *out) {
    bool eight = scheme == L4J_SCHEME_GGUF_Q8_0;
    for (int start = 0; start < (eight ? 256 : 32); start += eight ? 32 : 1) {
        if (scheme ==
            L4J_SCHEME_GGUF_MXFP4) { // every exponent: from 2^-127, below fp32's normal numbers, to 2^128, above its largest
            for (int e = start % 8; e < 256; e += 8) block32(scheme, static_cast<uint16_t>(e), 0, start, out);
            continue;
        }
        for (size_t i = 0; i < kScales; i++) {
            block32(scheme, kHalves[i], kHalves[(i * 3 + static_cast<size_t>(start)) % kScales], start, out);
        }
    }
}

// ---- super-blocks of 256

// Codes of a super-block: 16 groups of 16 values in the order of the values, all of `count` over a few groups.
void codes256(int count, int start, int *q) {
    for (int i = 0; i < 256; i++) q[i] = (i * (count > 16 ? 5 : 1) + i / 16 * 3 + start) % count;
}

// Two bits of each value: 32 bytes for each half, value 32·s + l of the half in bits 2s of byte l.
void two_bits(const int *q, Blocks *out) {
    for (int h = 0; h < 2; h++) {
        for (int l = 0; l < 32; l++) {
            int byte = 0;
            for (int s = 0; s < 4; s++) byte |= (q[128 * h + 32 * s + l] & 3) << 2 * s;
            out->bytes.push_back(static_cast<uint8_t>(byte));
        }
    }
}

// The third or fifth bit of each value: bit u of byte l is that of value 32·u + l.
void top_bits(const int *q, int shift, Blocks *out) {
    for (int l = 0; l < 32; l++) {
        int byte = 0;
        for (int u = 0; u < 8; u++) byte |= (q[32 * u + l] >> shift & 1) << u;
        out->bytes.push_back(static_cast<uint8_t>(byte));
    }
}

// Nibbles: 32 bytes for 64 values, the first 32 in the low ones.
void nibbles(const int *q, Blocks *out) {
    for (int k = 0; k < 4; k++) {
        int low[32], high[32];
        for (int l = 0; l < 32; l++) low[l] = q[64 * k + l] & 15, high[l] = q[64 * k + 32 + l] & 15;
        out->pairs(low, high, 32, 4);
    }
}

// The six bits of eight scales and eight mins in twelve bytes.
void scales_and_mins(const int *sc, const int *m, Blocks *out) {
    for (int j = 0; j < 4; j++) out->bytes.push_back(static_cast<uint8_t>(sc[j] | sc[j + 4] >> 4 << 6));
    for (int j = 0; j < 4; j++) out->bytes.push_back(static_cast<uint8_t>(m[j] | m[j + 4] >> 4 << 6));
    for (int j = 0; j < 4; j++) out->bytes.push_back(static_cast<uint8_t>((sc[j + 4] & 15) | (m[j + 4] & 15) << 4));
}

void block256(int32_t scheme, int index, Blocks *out) {
    size_t i = static_cast<size_t>(index);
    uint16_t d = kHalves[i % kScales], dmin = kHalves[(i * 3 + i / kScales) % kScales];
    int q[256], sc[16], m[16];
    for (int g = 0; g < 16; g++) {
        sc[g] = 16 * index + g;
        m[g] = 7 * sc[g] + index / 4;
    }
    switch (scheme) {
    case L4J_SCHEME_GGUF_Q2_K:
        codes256(4, index, q);
        for (int g = 0; g < 16; g++) { // sixteen blocks have every scale with every min
            sc[g] = g;
            m[g] = (g + index) % 16;
            out->bytes.push_back(static_cast<uint8_t>(sc[g] | m[g] << 4));
        }
        two_bits(q, out);
        out->halves({d, dmin});
        for (int v = 0; v < 256; v++) {
            out->values.push_back(step(step(half(d) * sc[v / 16] * q[v]) - step(half(dmin) * m[v / 16])));
        }
        break;
    case L4J_SCHEME_GGUF_Q3_K: {
        codes256(8, index, q);
        top_bits(q, 2, out);
        two_bits(q, out);
        int packed[12] = {};
        for (int g = 0; g < 16; g++) {
            sc[g] %= 64;
            packed[g % 8] |= (sc[g] & 15) << (g < 8 ? 0 : 4);
            packed[8 + g % 4] |= sc[g] >> 4 << 2 * (g / 4);
        }
        for (int byte : packed) out->bytes.push_back(static_cast<uint8_t>(byte));
        out->halves({d});
        for (int v = 0; v < 256; v++) out->values.push_back(step(half(d) * (sc[v / 16] - 32) * (q[v] - 4)));
        break;
    }
    case L4J_SCHEME_GGUF_Q4_K:
    case L4J_SCHEME_GGUF_Q5_K: {
        bool five = scheme == L4J_SCHEME_GGUF_Q5_K;
        codes256(five ? 32 : 16, index, q);
        for (int g = 0; g < 8; g++) sc[g] = (8 * index + g) % 64, m[g] = (11 * sc[g] + index) % 64;
        out->halves({d, dmin});
        scales_and_mins(sc, m, out);
        if (five) top_bits(q, 4, out);
        nibbles(q, out);
        for (int v = 0; v < 256; v++) {
            out->values.push_back(step(step(half(d) * sc[v / 32] * q[v]) - step(half(dmin) * m[v / 32])));
        }
        break;
    }
    case L4J_SCHEME_GGUF_Q6_K: {
        codes256(64, index, q);
        for (int h = 0; h < 2; h++) { // value 32·s + l of a half: low bits in byte l + 32·(s % 2), nibble s / 2
            int low[64], high[64];
            for (int l = 0; l < 64; l++) low[l] = q[128 * h + l] & 15, high[l] = q[128 * h + 64 + l] & 15;
            out->pairs(low, high, 64, 4);
        }
        for (int h = 0; h < 2; h++) {
            for (int l = 0; l < 32; l++) {
                int byte = 0;
                for (int s = 0; s < 4; s++) byte |= q[128 * h + 32 * s + l] >> 4 << 2 * s;
                out->bytes.push_back(static_cast<uint8_t>(byte));
            }
        }
        for (int g = 0; g < 16; g++) out->bytes.push_back(static_cast<uint8_t>(sc[g]));
        out->halves({d});
        for (int v = 0; v < 256; v++) {
            out->values.push_back(step(half(d) * static_cast<int8_t>(sc[v / 16]) * (q[v] - 32)));
        }
        break;
    }
    }
    out->count++;
}

void check_gguf(int32_t scheme) {
    bool super = scheme >= L4J_SCHEME_GGUF_Q2_K && scheme <= L4J_SCHEME_GGUF_Q6_K;
    Blocks blocks;
    if (super) {
        for (int index = 0; index < 160; index++) block256(scheme, index, &blocks);
    } else {
        blocks32(scheme, &blocks);
    }
    Parts p;
    p.scheme = scheme;
    int64_t across = super ? 1 : 5; // an odd number of small blocks in a row where they divide
    while (blocks.count % across) across--;
    p.rows = blocks.count / across;
    p.cols = across * (super ? 256 : 32);
    p.add(L4J_ROLE_VALUES, L4J_U8, {p.rows, static_cast<int64_t>(blocks.bytes.size()) / p.rows}, blocks.bytes);
    l4j::expect_decoded(p, blocks.values);
}

// ---- bitsandbytes

// Codes in order, two to a byte, the first in the high nibble; rows of 33 values, so that blocks straddle them and the last is cut.
void check_4bit(int32_t scheme, int64_t block, bool nested) {
    std::istringstream nf4("-1 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 "
                           "-0.18477343022823334 -0.09105003625154495 0 0.07958029955625534 0.16093020141124725 "
                           "0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941 "
                           "0.7229568362236023 1");
    static const double fp4[] = {0, 0.0625, 8, 12, 4, 6, 2, 3};
    Parts p;
    p.scheme = scheme;
    p.cols = 33;
    p.rows = (300 * block + 32) / 33;
    int64_t count = p.rows * p.cols, blocks = (count + block - 1) / block;
    float map[16];
    for (int q = 0; q < 16; q++) {
        nf4 >> map[q];
        if (scheme == L4J_SCHEME_FP4) map[q] = step(fp4[q & 7] / 12) * (q & 8 ? -1.0f : 1.0f);
    }
    std::vector<float> absmax, scales, nested_map, nested_scales, values;
    std::vector<uint8_t> codes, packed(static_cast<size_t>((count + 1) / 2));
    const float offset = 0.25f;
    for (int i = 0; i < 256; i++) nested_map.push_back(i < 10 ? kFloats[i] : step((i - 133) / 127.0));
    for (int64_t b = 0; b < blocks; b++) {
        codes.push_back(static_cast<uint8_t>(b));
        scales.push_back(kFloats[b % 10]);
        if (b % 32 == 0)
            nested_scales.push_back(b / 32 == 6 ? 0.9f : kFloats[b / 32 % 10]); // the largest would overflow
        absmax.push_back(nested ? step(static_cast<double>(
                                           step(static_cast<double>(nested_map[codes.back()]) * nested_scales.back())) +
                                       offset)
                                : scales.back());
    }
    for (int64_t i = 0; i < count; i++) {
        int q = static_cast<int>((i + i / block) % 16);
        packed[static_cast<size_t>(i / 2)] |= static_cast<uint8_t>(i % 2 ? q : q << 4);
        values.push_back(step(static_cast<double>(map[q]) * absmax[static_cast<size_t>(i / block)]));
    }
    p.add(L4J_ROLE_VALUES, L4J_U8, {static_cast<int64_t>(packed.size()), 1}, packed);
    p.add(L4J_ROLE_BLOCK_SIZE, L4J_I64, {1}, std::vector<int64_t>{block});
    if (nested) {
        p.add(L4J_ROLE_SCALES, L4J_U8, {blocks}, codes);
        p.add(L4J_ROLE_NESTED_SCALES, L4J_F32, {static_cast<int64_t>(nested_scales.size())}, nested_scales);
        p.add(L4J_ROLE_NESTED_QUANT_MAP, L4J_F32, {256}, nested_map);
        p.add(L4J_ROLE_NESTED_OFFSET, L4J_F32, {1}, std::vector<float>{offset});
        p.add(L4J_ROLE_NESTED_BLOCK_SIZE, L4J_I64, {1}, std::vector<int64_t>{32});
    } else {
        p.add(L4J_ROLE_SCALES, L4J_F32, {blocks}, scales);
    }
    l4j::expect_decoded(p, values);
}

// ---- integers and FP8

void check_int8(int32_t scheme) {
    Parts p;
    p.scheme = scheme;
    p.rows = 10;
    p.cols = 3 * 257; // three groups of an odd size
    std::vector<int8_t> codes;
    std::vector<float> scales, values;
    int64_t groups = scheme == L4J_SCHEME_INT8 ? 3 : 1;
    for (int64_t n = 0; n < p.rows; n++) {
        for (int64_t g = 0; g < groups; g++) scales.push_back(kFloats[(n + 3 * g) % 10]);
        for (int64_t k = 0; k < p.cols; k++) {
            codes.push_back(static_cast<int8_t>(k % 256));
            float scale = scales[static_cast<size_t>(n * groups + (groups > 1 ? k / 257 : 0))];
            float value = step(static_cast<double>(codes.back()) * scale);
            values.push_back(groups > 1 ? value : step(static_cast<double>(value) * (1.0f / 127)));
        }
    }
    p.add(L4J_ROLE_VALUES, L4J_I8, {p.rows, p.cols}, codes);
    if (groups > 1) {
        p.add(L4J_ROLE_SCALES, L4J_F32, {p.rows, groups}, scales);
    } else {
        p.add(L4J_ROLE_SCALES, L4J_F32, {p.rows}, scales);
    }
    l4j::expect_decoded(p, values);
}

// Every code with every zero and every scale: row n has zero n % 16, each group another scale.
void check_int4(int32_t scheme) {
    bool awq = scheme == L4J_SCHEME_AWQ;
    static const int order[] = {0, 2, 4, 6, 1, 3, 5, 7}; // AWQ's nibble i holds row order[i] of eight
    Parts p;
    p.scheme = scheme;
    p.rows = 160;
    p.cols = 64;
    const int64_t groups = 4;
    std::vector<uint32_t> words(static_cast<size_t>(p.rows * p.cols / 8)),
        zeros(static_cast<size_t>(groups * p.rows / 8));
    std::vector<uint16_t> scales(static_cast<size_t>(groups * p.rows));
    std::vector<float> values;
    for (int64_t n = 0; n < p.rows; n++) {
        int nibble = static_cast<int>(n % 8);
        for (int i = 0; awq && i < 8; i++) nibble = order[i] == n % 8 ? i : nibble;
        for (int64_t g = 0; g < groups; g++) {
            scales[static_cast<size_t>(g * p.rows + n)] = kHalves[static_cast<size_t>(n / 16 + 3 * g) % kScales];
            zeros[static_cast<size_t>(g * p.rows / 8 + n / 8)] |= static_cast<uint32_t>(n % 16) << 4 * nibble;
        }
        for (int64_t k = 0; k < p.cols; k++) {
            uint32_t q = static_cast<uint32_t>(k + n) % 16;
            if (awq) {
                words[static_cast<size_t>(k * p.rows / 8 + n / 8)] |= q << 4 * nibble;
            } else {
                words[static_cast<size_t>(k / 8 * p.rows + n)] |= q << 4 * (k % 8);
            }
            int64_t zero = n % 16 + (scheme == L4J_SCHEME_GPTQ); // version 1 stores one less
            double scale = half(scales[static_cast<size_t>(k / 16 * p.rows + n)]);
            values.push_back(step(static_cast<double>(static_cast<int64_t>(q) - zero) * scale));
        }
    }
    p.add(L4J_ROLE_VALUES, L4J_I32, {awq ? p.cols : p.cols / 8, awq ? p.rows / 8 : p.rows}, words);
    p.add(L4J_ROLE_ZEROS, L4J_I32, {groups, p.rows / 8}, zeros);
    p.add(L4J_ROLE_SCALES, L4J_F16, {groups, p.rows}, scales);
    l4j::expect_decoded(p, values);
}

void check_fp8(bool blocks) {
    Parts p;
    p.scheme = L4J_SCHEME_FP8_E4M3;
    p.rows = blocks ? 129 : 10;
    p.cols = blocks ? 5 * 128 - 1 : 257;
    int64_t across = blocks ? 5 : 1;
    std::vector<uint8_t> codes;
    std::vector<float> values, scales(kFloats, kFloats + 10);
    for (int64_t n = 0; n < p.rows; n++) {
        for (int64_t k = 0; k < p.cols; k++) {
            int code = static_cast<int>((k + n) % 256), e = code >> 3 & 15, f = code & 7;
            double value = (e ? std::ldexp(8 + f, e - 10) : std::ldexp(f, -9)) * (code & 128 ? -1 : 1);
            if ((code & 127) == 127) value = std::numeric_limits<double>::quiet_NaN();
            codes.push_back(static_cast<uint8_t>(code));
            values.push_back(step(value * scales[static_cast<size_t>(blocks ? n / 128 * across + k / 128 : n)]));
        }
    }
    p.add(L4J_ROLE_VALUES, L4J_U8, {p.rows, p.cols}, codes);
    if (blocks) {
        p.add(L4J_ROLE_SCALES, L4J_F32, {2, across}, scales);
    } else {
        p.add(L4J_ROLE_SCALES, L4J_F32, {p.rows}, scales);
    }
    l4j::expect_decoded(p, values);
}

class QuantCodesTest : public ::testing::TestWithParam<std::pair<int32_t, const char *>> {};

TEST_P(QuantCodesTest, EveryCodeUnderEveryScale) {
    int32_t scheme = GetParam().first;
    switch (scheme) {
    case L4J_SCHEME_NF4:
    case L4J_SCHEME_FP4:
        check_4bit(scheme, 32, false);
        check_4bit(scheme, 64, true);
        check_4bit(scheme, 128, false);
        break;
    case L4J_SCHEME_LLM_INT8:
    case L4J_SCHEME_INT8: check_int8(scheme); break;
    case L4J_SCHEME_GPTQ:
    case L4J_SCHEME_GPTQ_V2:
    case L4J_SCHEME_AWQ: check_int4(scheme); break;
    case L4J_SCHEME_FP8_E4M3:
        check_fp8(false);
        check_fp8(true);
        break;
    default: check_gguf(scheme);
    }
}

INSTANTIATE_TEST_SUITE_P(Schemes, QuantCodesTest, ::testing::ValuesIn(l4j::schemes()),
                         [](const auto &info) { return std::string(info.param.second); });

} // namespace
