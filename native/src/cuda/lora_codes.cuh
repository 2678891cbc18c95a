/*
 * Products with quantized weights. What a product sees is the decoded value: in fp32 as it is, for 16-bit activations rounded to their
 * dtype (to nearest, ties to even). Three ways:
 *   a few rows   BF16, forward, no segments, M <= kVectorRows: each warp decodes straight into the fragments of the tensor cores
 *   some rows    BF16, M <= kTileRows: blocks decode tiles of the weight into shared memory
 *   any          columns of the output are taken in chunks, whose weights are decoded into a scratch that stays in the L2 cache and then
 *                multiplied like a dense weight
 * The last two give the same bits as a dense weight of the decoded values; so the number of rows changes none but those of the first.
 */
#pragma once

#include "codes.cuh"
#include "lora.cuh"

namespace l4j {

constexpr int kVectorRows = 4, kTileRows = 64;

/* The weights of a call's projections, and workspace for the third way. */
struct Weights {
    const l4j_weight *const *of;
    int count;
    char *scratch;
    bool few; /* whether a few rows may take the first way, whose sums have another order */
};
/* Bytes of scratch that launch_products needs. */
size_t products_scratch(const Weights &weights, const LoraParams &p, bool backward, int32_t dtype);
/* y or dx: launch_gemm, whatever the weights are stored as. */
cudaError_t launch_products(const l4j_queue *queue, const LoraParams &p, const Weights &weights, bool backward,
                            int32_t dtype);

/* ---- kernels that decode as they multiply, in files of their own: they take long to compile ---- */

struct CodedSet {
    Coded of[kProjections];
};
#define L4J_FUSED_FORMATS(F) F(Map4) F(Int4) F(Int8) F(LlmInt8) F(Q8_0) F(Q4_K) F(Q6_K)

#define DECLARE(format)                                                                                 \
    cudaError_t launch_tiles_##format(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, \
                                      bool backward);                                                   \
    cudaError_t launch_vector_##format(const l4j_queue *queue, const LoraParams &p, const CodedSet &set);
L4J_FUSED_FORMATS(DECLARE)
#undef DECLARE

} // namespace l4j
