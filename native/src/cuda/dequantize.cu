/* dequantize_forward and the decoding of rows behind other operations. */
#include "decode_rows.cuh"
#include "elementwise.cuh"

namespace l4j {

constexpr int kDecodeRows = 4; /* an octet of each for a thread: loaded first, then decoded */

template <class OUT> __device__ static void store_octet(OUT *to, const float (&w)[8], bool vectors) {
    alignas(16) OUT v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = from_float<OUT>(w[i]);
    if (vectors) {
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof v / 16); i++) {
            reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(v)[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) to[i] = v[i];
    }
}

/* The row of the weight; its first `octet` reports an id that is none. */
__device__ static int64_t source_row(const Coded &q, const RowRange &r, int64_t m, bool first, bool &good) {
    int64_t n = r.ids ? r.ids[m] : r.first + m;
    good = n >= 0 && n < q.rows;
    if (!good && first) report(r.fault, kBadId, m, n, q.rows - 1);
    return good ? n : 0;
}

/* Neighbouring threads take neighbouring octets: loads and stores of a warp lie together. */
template <class Format, class OUT>
__global__ void __launch_bounds__(kRowThreads)
    decode_kernel(const __grid_constant__ Coded q, RowRange r, View out, uint32_t octets, bool vectors) {
    uint32_t i = blockIdx.x * kRowThreads + threadIdx.x, group = i / octets, o = i - group * octets;
    int64_t m0 = static_cast<int64_t>(group) * kDecodeRows;
    int at = static_cast<int>(r.column / 8 + o), unit = at / 4;
    int64_t n[kDecodeRows];
    typename Format::Head heads[kDecodeRows];
    typename Format::Scale scales[kDecodeRows];
    uint32_t codes[kDecodeRows][Format::kWords];
    bool good[kDecodeRows];
#pragma unroll
    for (int j = 0; j < kDecodeRows; j++) {
        int64_t m = m0 + j < r.rows ? m0 + j : r.rows - 1; /* all lanes decode */
        n[j] = source_row(q, r, m, o == 0, good[j]);
        heads[j] = Format::head(q, n[j], unit);
        Format::codes(q, n[j], unit, at % 4, codes[j]);
    }
#pragma unroll
    for (int j = 0; j < kDecodeRows; j++) scales[j] = Format::scale(q, heads[j], unit);
#pragma unroll
    for (int j = 0; j < kDecodeRows; j++) {
        float w[8];
        Format::values(scales[j], codes[j], unit, at % 4, w);
        if (!good[j]) {
#pragma unroll
            for (float &v : w) v = 0.0f;
        }
        if (m0 + j < r.rows) {
            store_octet(reinterpret_cast<OUT *>(out.data) + (m0 + j) * out.s0 + static_cast<int64_t>(o) * 8, w,
                        vectors);
        }
    }
}

/* ---- weights that have no units: value by value ---- */

__device__ static float value_at(const Coded &q, int64_t n, int64_t k) {
    const uint8_t *bytes = bytes_of(q);
    switch (q.scheme) {
    case L4J_SCHEME_LLM_INT8: {
        float code = static_cast<float>(static_cast<int8_t>(bytes[n * q.cols + k]));
        return code * static_cast<const float *>(q.scales)[n] * 7.874015718698502e-3f;
    }
    case L4J_SCHEME_INT8: {
        float code = static_cast<float>(static_cast<int8_t>(bytes[n * q.cols + k]));
        return code * stored_scale(q, n * q.scale_stride + k / q.block);
    }
    case L4J_SCHEME_FP8_E4M3:
        return e4m3_value(bytes[n * q.cols + k]) * stored_scale(q, n / q.block_rows * q.scale_stride + k / q.block);
    case L4J_INT4_ROWS: {
        uint8_t pair = bytes[n * q.row_bytes + k / 2];
        int code = k % 2 ? pair & 15 : pair >> 4;
        int64_t group = n * q.scale_stride + (q.group_index ? q.group_index[k] : k / q.block);
        return static_cast<float>(code - q.row_zeros[group]) * static_cast<const float *>(q.scales)[group];
    }
    default: { /* NF4, FP4 */
        int64_t i = n * q.cols + k, block = i / q.block;
        float absmax;
        if (q.nested_map) {
            float scaled =
                q.nested_map[static_cast<const uint8_t *>(q.scales)[block]] * q.nested_scales[block >> q.nested_shift];
            absmax = scaled + q.nested_offset;
        } else {
            absmax = static_cast<const float *>(q.scales)[block];
        }
        return q.map[i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4] * absmax;
    }
    }
}

__global__ void __launch_bounds__(kRowThreads)
    decode_values_kernel(const __grid_constant__ Coded q, RowRange r, View out) {
    each_element(r.rows, r.columns, [&](int64_t m, int64_t k) {
        bool good;
        int64_t n = source_row(q, r, m, k == 0, good);
        write(out, m, k, good ? value_at(q, n, r.column + k) : 0.0f);
    });
}

cudaError_t launch_decode(cudaStream_t stream, const Coded &q, const RowRange &range, const View &out) {
    if (range.rows <= 0 || range.columns <= 0) return cudaSuccess;
    if (!in_units(q)) {
        decode_values_kernel<<<row_grid(range.rows, range.columns), kRowThreads, 0, stream>>>(q, range, out);
        return cudaGetLastError();
    }
    int64_t octets = range.columns / 8, most = (int64_t(1) << 31) / octets, bytes = element_bytes(out.dtype);
    bool vectors = out.s0 * bytes % 16 == 0 && reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
    for (int64_t m = 0; m < range.rows; m += most) {
        RowRange part = range;
        part.first += m;
        if (part.ids) part.ids += m;
        part.rows = range.rows - m < most ? range.rows - m : most;
        View to = out;
        to.data += m * out.s0 * bytes;
        unsigned grid = blocks(ceil_div(part.rows, kDecodeRows) * octets, kRowThreads);
        with_format(q, [&](auto format) {
            with_dtype(out.dtype, [&](auto zero) {
                decode_kernel<decltype(format), decltype(zero)>
                    <<<grid, kRowThreads, 0, stream>>>(q, part, to, static_cast<uint32_t>(octets), vectors);
            });
        });
        cudaError_t status = cudaGetLastError();
        if (status != cudaSuccess) return status;
    }
    return cudaSuccess;
}

/* ---- the operation ---- */

__global__ void __launch_bounds__(kRowThreads)
    dequantize_kernel(View w, int64_t first, View out, int64_t M, int64_t N) {
    each_element(M, N, [&](int64_t m, int64_t n) { write(out, m, n, read(w, first + m, n)); });
}

size_t dequantize_forward_workspace(int, const l4j_dequantize *) { return 0; }
l4j_status dequantize_forward(l4j_queue *queue, const l4j_dequantize *args, void *, l4j_error *error) {
    const l4j_weight *w = args->weight;
    int64_t M = args->out->shape[0], N = args->out->shape[1];
    if (is_coded(w)) {
        RowRange range = {args->row_begin, M, 0, N, nullptr, fault_of(queue)};
        L4J_CUDA("dequantize_forward", launch_decode(stream_of(queue), coded(w), range, view(args->out)));
    } else {
        L4J_CUDA("dequantize_forward", launch(queue, dequantize_kernel, row_grid(M, N), kRowThreads, 0, view(w),
                                              args->row_begin, view(args->out), M, N));
    }
    return L4J_OK;
}

} // namespace l4j
