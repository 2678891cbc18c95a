/* Rows of activations as bytes. */
#include "../int8.h"
#include "int8.h"
#include <string.h>

bool int8_in_tiles(const l4j_weight *const *weights, int count, int64_t rows) {
    bool tiles = weights[0]->device->int8_isa == L4J_ISA_AMX_INT8 && rows >= INT8_TILES_FROM;
    for (int i = 0; i < count && tiles; i++) tiles = l4j_gguf_format_of(weights[i]->scheme)->group == L4J_INT8_UNIT;
    return tiles;
}

int8_product_function int8_product_of(const l4j_device *device, const int8_rows *x) {
#ifdef __AVX512F__
    if (x->tiles) return l4j_amx_int8_product;
    if (device->int8_isa > L4J_ISA_AVX512) return l4j_avx512_vnni_int8_product;
#endif
    (void)device, (void)x;
    return int8_product;
}

void int8_layout(l4j_arena *arena, int64_t rows, int64_t columns, bool tiles, int8_rows *out) {
    int64_t room = tiles ? gemm_ceil(rows, L4J_PANEL) : rows, units = room * (columns / L4J_INT8_UNIT);
    *out =
        (int8_rows){.rows = rows, .columns = columns, .tiles = tiles, .q = l4j_take(arena, (size_t)(room * columns))};
    out->d = l4j_take(arena, sizeof(float) * (size_t)units);
    if (!tiles) out->sum = l4j_take(arena, sizeof(int32_t) * 2 * (size_t)units);
    for (int i = 0; i < 3; i++) out->part[i] = l4j_take(arena, sizeof(float) * (size_t)units);
}

typedef struct {
    __m128i q[2];
    float d;
    int32_t sum[2];
} int8_unit;

/* The steps of l4j_int8_quantize. */
static inline int8_unit int8_unit_of(const float *in) {
    int8_unit u;
    v16 low = v16_load(in), high = v16_load(in + L4J_PANEL), most = v16_max(v16_abs(low), v16_abs(high));
    bool finite = v16_all_within(low, INFINITY) && v16_all_within(high, INFINITY);
    float max = finite ? v16_hmax(most) : 0;
    bool live = max >= L4J_INT8_LEAST;
    v16 inverse = v16_set1(live ? 127.0f / max : 0.0f);
    u.d = finite ? (live ? max / 127.0f : 0.0f) : NAN;
    if (!finite) low = high = v16_zero();
    u.q[0] = v16_to_i8(v16_mul(low, inverse));
    u.q[1] = v16_to_i8(v16_mul(high, inverse));
    for (int h = 0; h < 2; h++) {
        __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), u.q[h]);
        __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
        fours = _mm_add_epi32(fours, _mm_shuffle_epi32(fours, 0x4E));
        u.sum[h] = _mm_cvtsi128_si32(_mm_add_epi32(fours, _mm_shuffle_epi32(fours, 0xB1)));
    }
    return u;
}

/* As unit i of all rows, in the order in which they lie. */
static inline void int8_store(const int8_rows *rows, int64_t i, const int8_unit *u) {
    int8_t *q = rows->q + i * L4J_INT8_UNIT;
    _mm_storeu_si128((__m128i *)q, u->q[0]);
    _mm_storeu_si128((__m128i *)(q + L4J_PANEL), u->q[1]);
    rows->d[i] = u->d;
    rows->part[0][i] = u->d * (float)(u->sum[0] + u->sum[1]);
    rows->part[1][i] = u->d * (float)u->sum[0];
    rows->part[2][i] = u->d * (float)u->sum[1];
    if (!rows->tiles) memcpy(rows->sum + 2 * i, u->sum, sizeof u->sum);
}

void int8_quantize(const int8_rows *rows, int64_t m, const float *x, int64_t stride) {
    const int64_t units = rows->columns / L4J_INT8_UNIT;
    for (int64_t t = 0; t < units; t++) {
        float gathered[L4J_INT8_UNIT];
        for (int i = 0; i < L4J_INT8_UNIT && stride != 1; i++) gathered[i] = x[(t * L4J_INT8_UNIT + i) * stride];
        int8_unit u = int8_unit_of(stride == 1 ? x + t * L4J_INT8_UNIT : gathered);
        int64_t i = rows->tiles ? (m / L4J_PANEL * units + t) * L4J_PANEL + m % L4J_PANEL : m * units + t;
        int8_store(rows, i, &u);
        const int8_unit none = {0};
        for (int64_t n = m + 1; rows->tiles && m + 1 == rows->rows && n % L4J_PANEL; n++) int8_store(rows, ++i, &none);
    }
}
