/*
 * Products with quantized weights. What a product sees is the decoded value: in fp32 as it is, for 16-bit activations rounded to their
 * dtype (to nearest, ties to even). Three ways:
 *   few rows    BF16, lora without segments, M <= kFewRows: warps decode straight into the fragments of the tensor cores, and the
 *               contraction is several sums
 *   some rows   BF16, M <= kTileRows, formats of kHasTiles: blocks decode tiles of the weight into shared memory
 *   any         columns of the output are taken in chunks, whose weights are decoded into a scratch that stays in the L2 cache and then
 *               multiplied like a dense weight
 * The last two give the same bits as a dense weight of the decoded values; so the number of rows changes none but those of the first.
 */
#pragma once

#include "codes.cuh"
#include "lora.cuh"

namespace l4j {

constexpr int kFewRows = 64, kVectorRows = 8, kTileRows = 64;

/* The weights of a call's projections, and workspace for the third way. */
struct Weights {
    const l4j_weight *const *of;
    int count;
    char *scratch;
    bool few; /* whether the first way may be taken, whose sums have another order */
};
/* Bytes of scratch that launch_products needs. */
size_t products_scratch(const Weights &weights, const LoraParams &p, bool backward, int32_t dtype);
/* y or dx: launch_gemm, whatever the weights are stored as. */
cudaError_t launch_products(const l4j_queue *queue, const LoraParams &p, const Weights &weights, bool backward,
                            int32_t dtype);

/* ---- kernels that decode as they multiply: each format in a file of its own, as they take long to compile ---- */

struct CodedSet {
    Coded of[kProjections];
};
/* A contraction in parts, for y of each projection, for dx once: `count` sums [M, columns of the output], one behind the other. They
   are as many as fill a large GPU, whatever GPU it is: so they depend on the weights' shapes alone. */
struct Parts {
    float *sums[kProjections];
    int32_t count[kProjections];
};
constexpr int kForwardRows = 128, kBackwardColumns = 256; /* of the weight that a block takes */
/* Formats of codes_staged.cuh; their blocks take 256 rows of the weight for y, in steps of 64 columns. */
template <class Format> constexpr bool kStagedFormat = requires { Format::kUnitBytes; };

template <class Format>
cudaError_t launch_few(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, const Parts &parts,
                       bool backward);
/* Adds up what launch_few left in parts. */
cudaError_t launch_sum(const l4j_queue *queue, const LoraParams &p, const Parts &parts, bool backward);

template <class Format>
cudaError_t launch_some(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, bool backward);
template <class Format> constexpr bool kHasTiles = false;
template <> constexpr bool kHasTiles<Map4> = true;
template <> constexpr bool kHasTiles<Int4> = true;
template <> constexpr bool kHasTiles<Int8> = true;
template <> constexpr bool kHasTiles<LlmInt8> = true;
template <> constexpr bool kHasTiles<Q8_0> = true;
template <> constexpr bool kHasTiles<Q4_K> = true;
template <> constexpr bool kHasTiles<Q6_K> = true;

} // namespace l4j
