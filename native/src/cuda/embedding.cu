/* embedding_forward and embedding_backward: rows of a table. */
#include "decode_rows.cuh"
#include "elementwise.cuh"

namespace l4j {

__global__ void __launch_bounds__(kRowThreads)
    embedding_kernel(View table, int64_t V, const int32_t *ids, View out, int64_t M, int64_t N, Fault *fault) {
    each_element(M, N, [&](int64_t m, int64_t n) {
        int32_t id = ids[m];
        bool good = id >= 0 && id < V;
        if (!good && n == 0) report(fault, kBadId, m, id, V - 1);
        write(out, m, n, good ? read(table, id, n) : 0.0f);
    });
}

size_t embedding_forward_workspace(int, const l4j_embedding *) { return 0; }
l4j_status embedding_forward(l4j_queue *queue, const l4j_embedding *args, void *, l4j_error *error) {
    int64_t M = args->out->shape[0], N = args->out->shape[1];
    if (is_coded(args->weight)) {
        RowRange range = {0, M, 0, N, args->ids, fault_of(queue)};
        L4J_CUDA("embedding_forward", launch_decode(stream_of(queue), coded(args->weight), range, view(args->out)));
        return L4J_OK;
    }
    L4J_CUDA("embedding_forward", launch(queue, embedding_kernel, row_grid(M, N), kRowThreads, 0, view(args->weight),
                                         args->weight->rows, args->ids, view(args->out), M, N, fault_of(queue)));
    return L4J_OK;
}

/* A block for each row of dout. The one with an id's first occurrence adds up all of them, in ascending order. */
__global__ void __launch_bounds__(kRowThreads)
    embedding_backward_kernel(View dout, const int32_t *ids, View dweight, int64_t V, int64_t M, int64_t N,
                              Fault *fault) {
    int64_t first = blockIdx.x;
    int32_t id = ids[first];
    if (id < 0 || id >= V) {
        if (threadIdx.x == 0) report(fault, kBadId, first, id, V - 1);
        return;
    }
    bool earlier = false;
    for (int64_t m = threadIdx.x; m < first; m += kRowThreads) earlier |= ids[m] == id;
    if (__syncthreads_or(earlier)) return;
    for (int64_t n0 = 0; n0 < N; n0 += kRowThreads) {
        int64_t n = n0 + threadIdx.x;
        float sum = n < N ? read(dweight, id, n) : 0.0f;
        for (int64_t m = first; m < M; m++) {
            if (ids[m] == id && n < N) sum += read(dout, m, n);
        }
        if (n < N) write(dweight, id, n, sum);
    }
}

size_t embedding_backward_workspace(int, const l4j_embedding *) { return 0; }
l4j_status embedding_backward(l4j_queue *queue, const l4j_embedding *args, void *, l4j_error *error) {
    int64_t M = args->dout->shape[0], N = args->dout->shape[1];
    L4J_CUDA("embedding_backward",
             launch(queue, embedding_backward_kernel, dim3(static_cast<unsigned>(N ? M : 0)), kRowThreads, 0,
                    view(args->dout), args->ids, view(args->dweight), args->dweight->shape[0], M, N, fault_of(queue)));
    return L4J_OK;
}

} // namespace l4j
