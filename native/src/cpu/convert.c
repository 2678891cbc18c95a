#include "internal.h"

float l4j_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu;
    union {
        uint32_t u;
        float f;
    } v;
    if (exponent == 0) { /* zero and subnormals: mantissa · 2^-24, exact in fp32 */
        v.f = (float)mantissa * 0x1p-24f;
        v.u |= sign;
    } else if (exponent == 31) {
        v.u = sign | 0x7F800000u | (mantissa << 13);
    } else {
        v.u = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    }
    return v.f;
}

uint16_t l4j_f32_to_f16(float x) {
    union {
        float f;
        uint32_t u;
    } v = {.f = x};
    uint32_t sign = v.u >> 16 & 0x8000u, u = v.u & 0x7FFFFFFFu;
    if (u > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* 65520 and more */
    if (u < 0x38800000u) { /* subnormal: adding 1/2 leaves the multiple of 2^-24, rounded, in the low bits */
        v.u = u;
        v.f += 0.5f;
        return (uint16_t)(sign | (v.u - 0x3F000000u));
    }
    return (uint16_t)(sign | ((u - 0x38000000u + 0xFFFu + (u >> 13 & 1)) >> 13));
}
