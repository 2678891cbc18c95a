/* rope_forward and rope_backward. */
#include "elementwise.cuh"

namespace l4j {

struct RopeParams {
    View src, dst, cosine, sine;
    const int32_t *positions;
    int64_t M, H, D, half, P;
    float direction;
    bool interleaved;
    Fault *fault;
};

/* A thread turns one pair, or copies one element behind the pairs: both elements of a pair are read before either is written. */
__global__ void __launch_bounds__(kRowThreads) rope_kernel(RopeParams p) {
    int64_t tail = p.D - 2 * p.half, per_head = p.half + tail;
    each_element(p.M, p.H * per_head, [&](int64_t m, int64_t i) {
        int64_t h = i / per_head, at = i % per_head;
        if (at >= p.half) {
            int64_t d = at + p.half;
            write(p.dst, m, h, d, read(p.src, m, h, d));
            return;
        }
        int32_t position = p.positions[m];
        if (position < 0 || position >= p.P) {
            if (i == 0) report(p.fault, kBadPosition, m, position, p.P - 1);
            return;
        }
        int64_t first = p.interleaved ? 2 * at : at, second = p.interleaved ? 2 * at + 1 : at + p.half;
        float a = read(p.src, m, h, first), b = read(p.src, m, h, second);
        float cosine = read(p.cosine, position, at), sine = p.direction * read(p.sine, position, at);
        write(p.dst, m, h, first, __fmaf_rn(-b, sine, a * cosine));
        write(p.dst, m, h, second, __fmaf_rn(a, sine, b * cosine));
    });
}

static l4j_status run(l4j_queue *queue, const l4j_rope *args, float direction, const char *op, l4j_error *error) {
    const int64_t *shape = args->src->shape;
    RopeParams p = {view(args->src),
                    view(args->dst),
                    view(args->cosine),
                    view(args->sine),
                    args->positions,
                    shape[0],
                    shape[1],
                    shape[2],
                    args->cosine->shape[1],
                    args->cosine->shape[0],
                    direction,
                    (args->flags & L4J_ROPE_INTERLEAVED) != 0,
                    fault_of(queue)};
    L4J_CUDA(op, launch(queue, rope_kernel, row_grid(p.M, p.H * (p.D - p.half)), kRowThreads, 0, p));
    return L4J_OK;
}

size_t rope_forward_workspace(int, const l4j_rope *) { return 0; }
l4j_status rope_forward(l4j_queue *queue, const l4j_rope *args, void *, l4j_error *error) {
    return run(queue, args, 1.0f, "rope_forward", error);
}

size_t rope_backward_workspace(int, const l4j_rope *) { return 0; }
l4j_status rope_backward(l4j_queue *queue, const l4j_rope *args, void *, l4j_error *error) {
    return run(queue, args, -1.0f, "rope_backward", error);
}

} // namespace l4j
