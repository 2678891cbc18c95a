/*
 * Quantized weights: what is kept of their parts, and the list of formats. Each family of formats is a pair of files:
 *   <family>.c   checks the parts that a caller gives and notes where they lie
 *   <family>.h   decodes: portable C, compiled once for each tier; a tier replaces what the compiler does not turn into vectors
 * Layouts: lora4j.h. The code books and block layouts are the same for CPU and CUDA.
 */
#ifndef L4J_FORMAT_H
#define L4J_FORMAT_H

#include <lora4j/lora4j.h>
#include <stdbool.h>

/*
 * Every GGUF block format: name in ggml, name of its decoder, values and bytes of a block; columns that share a scale, whether values
 * are code * d + m (1) or code * d (0), least and greatest code.
 */
#define L4J_GGUF_SMALL_FORMATS(F)               \
    F(Q4_0, q4_0, 32, 18, 32, 0, -8, 7)         \
    F(Q4_1, q4_1, 32, 20, 32, 1, 0, 15)         \
    F(Q5_0, q5_0, 32, 22, 32, 0, -16, 15)       \
    F(Q5_1, q5_1, 32, 24, 32, 1, 0, 31)         \
    F(Q8_0, q8_0, 32, 34, 32, 0, -128, 127)     \
    F(IQ4_NL, iq4_nl, 32, 18, 32, 0, -127, 113) \
    F(MXFP4, mxfp4, 32, 17, 32, 0, -12, 12)
#define L4J_GGUF_K_FORMATS(F)             \
    F(Q2_K, q2_k, 256, 84, 16, 1, 0, 3)   \
    F(Q3_K, q3_k, 256, 110, 16, 0, -4, 3) \
    F(Q4_K, q4_k, 256, 144, 32, 1, 0, 15) \
    F(Q5_K, q5_k, 256, 176, 32, 1, 0, 31) \
    F(Q6_K, q6_k, 256, 210, 16, 0, -32, 31)
#define L4J_GGUF_FORMATS(F) L4J_GGUF_SMALL_FORMATS(F) L4J_GGUF_K_FORMATS(F)

/* Every other format: scheme, family that checks it. */
#define L4J_OTHER_FORMATS(F)  \
    F(NF4, bitsandbytes_4bit) \
    F(FP4, bitsandbytes_4bit) \
    F(LLM_INT8, llm_int8)     \
    F(INT8, int8)             \
    F(GPTQ, gptq)             \
    F(GPTQ_V2, gptq)          \
    F(AWQ, awq)               \
    F(FP8_E4M3, fp8)

enum { L4J_ROLES = L4J_ROLE_NESTED_BLOCK_SIZE + 1 };

/* Instead of a scheme: GPTQ or AWQ as a weight keeps it that packs, rows of codes in pairs (the first in the high nibble) and, for each
   row, its groups' fp32 scales and zeros. */
enum { L4J_INT4_ROWS = -1 };

/* A quantized weight [rows, cols]: where its codes and scales lie. Which fields count depends on the scheme. */
typedef struct l4j_quant {
    int32_t scheme; /* L4J_SCHEME_... or L4J_INT4_ROWS */
    int64_t rows, cols;
    const void *values;
    int64_t row_bytes; /* GGUF, L4J_INT4_ROWS: bytes of a row */
    bool panels; /* GGUF, as a weight keeps it that packs: byte j of row n at (n / 16 * row_bytes + j) * 16 + n % 16 */
    const void *scales;
    int32_t scale_dtype;
    int64_t scale_stride;       /* elements from one row of scales to the next */
    int64_t block;              /* values (4-bit bitsandbytes: of the flattened weight) that share a scale */
    int64_t block_rows;         /* fp8: rows that share a scale */
    const int32_t *zeros;       /* GPTQ, AWQ */
    const int8_t *row_zeros;    /* L4J_INT4_ROWS */
    int64_t zero_stride;        /* words from one row of zeros to the next */
    const int32_t *group_index; /* GPTQ in act-order: the row of scales of column k; NULL = k / block */
    float map[16];              /* NF4, FP4: the code book */
    /* double quantization: SCALES are codes of nested_map; nested_block of them share a nested scale */
    const float *nested_map, *nested_scales;
    float nested_offset;
    int64_t nested_block;
} l4j_quant;

/* Parts as a caller lists them. */
typedef struct l4j_part_list {
    int32_t count;
    const int32_t *roles;
    const l4j_tensor *values;
} l4j_part_list;

/* The parts of a weight by role; data NULL where there is none. */
typedef struct l4j_parts {
    const char *op;
    const char *name; /* of the scheme */
    bool out;         /* the parts are written: what they hold does not count yet, sizes of blocks excepted */
    int32_t scheme;
    int64_t rows, cols;
    const l4j_tensor *role[L4J_ROLES];
} l4j_parts;

static inline bool l4j_is_gguf(int32_t scheme) { return scheme >= L4J_SCHEME_GGUF_Q4_0; }
/* "GGUF_Q4_K"; NULL for a scheme that is not quantized. */
const char *l4j_format_name(int32_t scheme);

/* Checks the parts of a quantized weight [rows, cols], for operation `op`, and notes where they lie. With `out` they are to be
   written; otherwise the values of small parts (offset, code books, indices) are checked as well. Scales and codes are not. */
l4j_status l4j_quant_open(const char *op, int32_t scheme, int64_t rows, int64_t cols, l4j_part_list list, bool out,
                          l4j_quant *quant, l4j_error *error);

/* Sixteen columns of a row of a GGUF weight: w = code * d, or code * d + m. */
typedef struct l4j_half {
    int8_t code[16];
    float d, m;
} l4j_half;
/* Columns [k, k + 32) of row n of a GGUF weight that does not lie in panels, k a multiple of 32. Any CPU. */
void l4j_decode_halves(const l4j_quant *quant, int64_t n, int64_t k, l4j_half half[2]);
/* What L4J_GGUF_FORMATS says of a format. */
typedef struct l4j_gguf_format {
    int32_t scheme, values, bytes, group, sum, least, most;
} l4j_gguf_format;
const l4j_gguf_format *l4j_gguf_format_of(int32_t scheme);

/* The code book of NF4 or FP4, as fp32. */
const float *l4j_bitsandbytes_map(int32_t scheme);
/* The 256 values of the dynamic data type with a sign, the code book of double quantization, and without one; ascending, as bits of fp32. */
const uint32_t *l4j_bitsandbytes_dynamic_map(void);
const uint32_t *l4j_bitsandbytes_unsigned_dynamic_map(void);

#define L4J_OPEN(family) l4j_status l4j_open_##family(const l4j_parts *parts, l4j_quant *quant, l4j_error *error)
L4J_OPEN(bitsandbytes_4bit);
L4J_OPEN(llm_int8);
L4J_OPEN(int8);
L4J_OPEN(gptq);
L4J_OPEN(awq);
L4J_OPEN(fp8);
L4J_OPEN(gguf);

/* Sets of dtypes that a part may have. */
#define L4J_DTYPE(t) (1u << (t))
#define L4J_FLOATS (L4J_DTYPE(L4J_F32) | L4J_DTYPE(L4J_F16) | L4J_DTYPE(L4J_BF16))
/* The part of this role: it must be there, have one of the dtypes and the shape [a] ([a, 1] too), or [a, b] where b is not 0. */
l4j_status l4j_part(const l4j_parts *parts, int32_t role, uint32_t dtypes, int64_t a, int64_t b, l4j_error *error);
/* The value of a part that is one I64, from `least` to `most`. */
l4j_status l4j_part_size(const l4j_parts *parts, int32_t role, int64_t least, int64_t most, int64_t *size,
                         l4j_error *error);
const char *l4j_role_name(int32_t role);

#endif
