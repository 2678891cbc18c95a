/* Decoded rows of a quantized weight. */
#pragma once

#include "codes.cuh"

namespace l4j {

/* Which values: columns [column, column + columns) of rows [first, first + rows), or of the rows `ids` where that is not NULL. An id
   outside of the weight is reported, and its row is zero. */
struct RowRange {
    int64_t first, rows, column, columns;
    const int32_t *ids;
    Fault *fault;
};

/* Writes them to `out` [rows, columns]: any stride of rows, F32, F16 or BF16 (rounded once, to nearest even). `column` is a multiple of
   32, and so is `columns` unless the weight's ends there. */
cudaError_t launch_decode(cudaStream_t stream, const Coded &q, const RowRange &range, const View &out);

} // namespace l4j
