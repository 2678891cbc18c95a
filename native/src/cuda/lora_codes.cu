/* Which way a product with quantized weights takes, and the third of them. */
#include "lora_codes.cuh"

#include "decode_rows.cuh"

#include <cstring>

namespace l4j {

/* Decoded weights of a chunk: a third of the L2 cache of the cards that this is made for, so that the product finds them there. */
constexpr int64_t kScratchBytes = int64_t(16) << 20;
constexpr int64_t kChunk = 128; /* columns of the output are taken in multiples of it */

static bool any_coded(const Weights &w) {
    for (int g = 0; g < w.count; g++) {
        if (is_coded(w.of[g])) return true;
    }
    return false;
}

/* ---- kernels that decode as they multiply ---- */

struct Fused {
    cudaError_t (*few)(const l4j_queue *, const LoraParams &, const CodedSet &, const Parts &, bool);
    bool staged;
    cudaError_t (*some)(const l4j_queue *, const LoraParams &, const CodedSet &, bool);
};
static Fused fused_kernels(const l4j_quant &q) {
    return with_format(q, [](auto format) {
        using Format = decltype(format);
        Fused fused = {launch_few<Format>, kStagedFormat<Format>, nullptr};
        if constexpr (kHasTiles<Format>) fused.some = launch_some<Format>;
        return fused;
    });
}
/* The kernels for a call, at most one of them: all projections have one format. */
static Fused fused_of(const Weights &w, const LoraParams &p, int32_t dtype) {
    bool few = w.few && !p.segmented && p.M <= kFewRows;
    if (dtype != L4J_BF16 || (!few && p.M > kTileRows)) return Fused{};
    const l4j_quant &first = w.of[0]->quant;
    for (int g = 0; g < w.count; g++) {
        const l4j_quant &q = w.of[g]->quant;
        if (!is_coded(w.of[g]) || !in_units(q) || q.scheme != first.scheme) return Fused{};
        few &= memcmp(q.map, first.map, sizeof q.map) == 0; /* dx has one table for all */
    }
    Fused fused = fused_kernels(first);
    if (few) {
        fused.some = nullptr;
    } else {
        fused.few = nullptr;
    }
    return fused;
}

/* About as many blocks as a large GPU has at once, of `longest` steps at least one each. */
static int32_t part_count(int64_t blocks, int64_t longest) {
    constexpr int64_t kBlocks = 256;
    int64_t count = kBlocks / blocks < longest ? kBlocks / blocks : longest;
    return static_cast<int32_t>(count > 1 ? count : 1);
}
/* The parts of a call of launch_few; returns the bytes of their sums, which lie in `scratch`. */
static size_t parts_of(const LoraParams &p, bool staged, bool backward, char *scratch, Parts *parts) {
    if (!backward && p.M <= kVectorRows) return 0;
    int64_t block = staged ? 256 : kForwardRows, step = staged ? 64 : 128;
    int64_t floats = 0, rows = 0;
    auto take = [&](int g, int64_t columns, int32_t count) {
        parts->sums[g] = reinterpret_cast<float *>(scratch) + floats;
        parts->count[g] = count;
        floats += count * p.M * columns;
    };
    for (int g = 0; g < p.projections; g++) {
        int64_t n = p.projection[g].n;
        if (!backward) take(g, n, part_count(ceil_div(n, block), ceil_div(p.K, step)));
        rows += ceil_div(n, 64);
    }
    if (backward) take(0, p.K, part_count(ceil_div(p.K, kBackwardColumns), rows));
    return static_cast<size_t>(floats) * sizeof(float);
}

/* ---- chunks ---- */

/* How many columns of the output a chunk has, and the scratch of all its decoded weights. */
struct Chunks {
    int64_t columns, bytes;
};
static Chunks chunks_of(const Weights &w, const LoraParams &p, bool backward, int32_t dtype) {
    int64_t size = element_bytes(dtype), values = 0, widest = 0; /* values for one column of the output */
    for (int g = 0; g < w.count; g++) {
        if (!is_coded(w.of[g])) continue;
        int64_t own = backward ? w.of[g]->rows : p.K;
        values = backward ? values + own : own;
        widest = widest > w.of[g]->rows ? widest : w.of[g]->rows;
    }
    if (backward) widest = p.K;
    int64_t columns = kScratchBytes / (values * size) / kChunk * kChunk;
    if (columns < kChunk) columns = kChunk;
    if (columns > widest) columns = (widest + 7) / 8 * 8;
    int64_t row = backward ? columns : (p.K + 7) / 8 * 8; /* elements of a row of the scratch */
    return Chunks{columns, (backward ? values : columns) * row * size};
}

size_t products_scratch(const Weights &w, const LoraParams &p, bool backward, int32_t dtype) {
    if (!any_coded(w)) return 0;
    Fused fused = fused_of(w, p, dtype);
    Parts parts = {};
    if (fused.few) return parts_of(p, fused.staged, backward, nullptr, &parts);
    if (fused.some) return 0;
    return static_cast<size_t>(chunks_of(w, p, backward, dtype).bytes);
}

/* Leaves a projection out of a launch of launch_gemm. */
static void leave_out(Projection &q, int32_t dtype) {
    q.n = 0;
    q.w = View{nullptr, 0, 1, 0, dtype};
}
static void move(View &v, int64_t rows, int64_t columns) {
    if (v.data) v.data += (rows * v.s0 + columns * v.s1) * element_bytes(v.dtype);
}

/* y of one projection in chunks of its rows of the weight. */
static cudaError_t forward_chunks(const l4j_queue *queue, const LoraParams &all, int g, const l4j_weight *w,
                                  const Chunks &chunks, char *scratch, int32_t dtype) {
    LoraParams p = all;
    for (int other = 0; other < p.projections; other++) {
        if (other != g) leave_out(p.projection[other], dtype);
    }
    Coded q = coded(w);
    Projection &own = p.projection[g];
    View out = {scratch, (p.K + 7) / 8 * 8, 1, 0, dtype};
    for (int64_t n = 0; n < w->rows; n += chunks.columns) {
        int64_t here = w->rows - n < chunks.columns ? w->rows - n : chunks.columns;
        cudaError_t status = launch_decode(stream_of(queue), q, RowRange{n, here, 0, p.K, nullptr, nullptr}, out);
        if (status != cudaSuccess) return status;
        own.w = out;
        own.n = here;
        own.y = all.projection[g].y;
        own.bias = all.projection[g].bias;
        move(own.y, 0, n);
        move(own.bias, n, 0);
        p.first = n;
        status = launch_gemm(queue, p, false, dtype);
        if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

/* dx in chunks of columns: each of all projections, whose sums are one. */
static cudaError_t backward_chunks(const l4j_queue *queue, const LoraParams &all, const Weights &w,
                                   const Chunks &chunks, int32_t dtype) {
    LoraParams p = all;
    for (int64_t k = 0; k < all.K; k += chunks.columns) {
        int64_t here = all.K - k < chunks.columns ? all.K - k : chunks.columns;
        View out = {w.scratch, chunks.columns, 1, 0, dtype};
        for (int g = 0; g < w.count; g++) {
            Projection &own = p.projection[g];
            if (is_coded(w.of[g])) {
                cudaError_t status = launch_decode(stream_of(queue), coded(w.of[g]),
                                                   RowRange{0, w.of[g]->rows, k, here, nullptr, nullptr}, out);
                if (status != cudaSuccess) return status;
                own.w = out;
                move(out, w.of[g]->rows, 0);
            } else {
                own.w = all.projection[g].w;
                move(own.w, 0, k);
            }
        }
        p.K = here;
        p.first = k;
        p.dx = all.dx;
        move(p.dx, 0, k);
        cudaError_t status = launch_gemm(queue, p, true, dtype);
        if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

cudaError_t launch_products(const l4j_queue *queue, const LoraParams &p, const Weights &w, bool backward,
                            int32_t dtype) {
    if (!any_coded(w)) return launch_gemm(queue, p, backward, dtype);
    if (p.M == 0) return cudaSuccess;
    Fused fused = fused_of(w, p, dtype);
    if (fused.few || fused.some) {
        CodedSet set = {};
        for (int g = 0; g < w.count; g++) set.of[g] = coded(w.of[g]);
        if (fused.some) return fused.some(queue, p, set, backward);
        Parts parts = {};
        bool summed = parts_of(p, fused.staged, backward, w.scratch, &parts) == 0;
        cudaError_t status = fused.few(queue, p, set, parts, backward);
        return status != cudaSuccess || summed ? status : launch_sum(queue, p, parts, backward);
    }
    Chunks chunks = chunks_of(w, p, backward, dtype);
    if (backward) return backward_chunks(queue, p, w, chunks, dtype);
    LoraParams dense = p;
    bool any_dense = false;
    for (int g = 0; g < w.count; g++) {
        if (is_coded(w.of[g])) {
            leave_out(dense.projection[g], dtype);
        } else {
            any_dense = true;
        }
    }
    cudaError_t status = any_dense ? launch_gemm(queue, dense, false, dtype) : cudaSuccess;
    for (int g = 0; g < w.count && status == cudaSuccess; g++) {
        if (is_coded(w.of[g])) status = forward_chunks(queue, p, g, w.of[g], chunks, w.scratch, dtype);
    }
    return status;
}

} // namespace l4j
