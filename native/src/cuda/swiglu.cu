/* swiglu_forward and swiglu_backward: the arithmetic of the CPU, element by element. */
#include "elementwise.cuh"
#include "exp.cuh"

namespace l4j {

struct SwigluParams {
    View gate, up, out, dout, dgate, dup;
    int64_t M, N;
};

__global__ void __launch_bounds__(kRowThreads) swiglu_forward_kernel(SwigluParams p) {
    each_element(p.M, p.N, [&](int64_t m, int64_t n) {
        float g = read(p.gate, m, n), s = 1.0f / (1.0f + exact_exp(-g));
        write(p.out, m, n, g * s * read(p.up, m, n));
    });
}

__global__ void __launch_bounds__(kRowThreads) swiglu_backward_kernel(SwigluParams p) {
    each_element(p.M, p.N, [&](int64_t m, int64_t n) {
        float g = read(p.gate, m, n), up = read(p.up, m, n), dout = read(p.dout, m, n);
        float s = 1.0f / (1.0f + exact_exp(-g)), silu = g * s, dsilu = s * __fmaf_rn(g, 1.0f - s, 1.0f);
        write(p.dup, m, n, dout * silu);
        write(p.dgate, m, n, dout * up * dsilu);
    });
}

static SwigluParams params(const l4j_swiglu *a, bool backward) {
    SwigluParams p = {view(a->gate), view(a->up), {}, {}, {}, {}, a->gate->shape[0], a->gate->shape[1]};
    if (backward) {
        p.dout = view(a->dout);
        p.dgate = view(a->dgate);
        p.dup = view(a->dup);
    } else {
        p.out = view(a->out);
    }
    return p;
}

size_t swiglu_forward_workspace(int, const l4j_swiglu *) { return 0; }
l4j_status swiglu_forward(l4j_queue *queue, const l4j_swiglu *args, void *, l4j_error *error) {
    SwigluParams p = params(args, false);
    L4J_CUDA("swiglu_forward", launch(queue, swiglu_forward_kernel, row_grid(p.M, p.N), kRowThreads, 0, p));
    return L4J_OK;
}

size_t swiglu_backward_workspace(int, const l4j_swiglu *) { return 0; }
l4j_status swiglu_backward(l4j_queue *queue, const l4j_swiglu *args, void *, l4j_error *error) {
    SwigluParams p = params(args, true);
    L4J_CUDA("swiglu_backward", launch(queue, swiglu_backward_kernel, row_grid(p.M, p.N), kRowThreads, 0, p));
    return L4J_OK;
}

} // namespace l4j
