/* rope_forward and rope_backward. */
#include "../values.h"
#include "real.h"

/* Turns every pair by its angle; direction is +1 forward and -1 backward. */
static void rope_rows(const l4j_rope *args, real direction, int thread, int threads) {
    int64_t H = args->src->shape[1], D = args->src->shape[2], half = args->cosine->shape[1], begin, end;
    bool interleaved = args->flags & L4J_ROPE_INTERLEAVED;
    l4j_partition(args->src->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t h = 0; h < H; h++) {
            for (int64_t i = 0; i < half; i++) {
                int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + half;
                real a = *real_at3(args->src, m, h, first), b = *real_at3(args->src, m, h, second);
                real cosine = *real_at2(args->cosine, args->positions[m], i);
                real sine = direction * *real_at2(args->sine, args->positions[m], i);
                *real_at3(args->dst, m, h, first) = real_fma(-b, sine, a * cosine);
                *real_at3(args->dst, m, h, second) = real_fma(a, sine, b * cosine);
            }
            for (int64_t d = 2 * half; d < D; d++) *real_at3(args->dst, m, h, d) = *real_at3(args->src, m, h, d);
        }
    }
}

static void rope_forward_task(void *context, int thread, int threads) { rope_rows(context, 1, thread, threads); }
static void rope_backward_task(void *context, int thread, int threads) { rope_rows(context, -1, thread, threads); }

size_t L4J_NAME(rope_forward_workspace)(int threads, const l4j_rope *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(rope_forward)(l4j_queue *queue, const l4j_rope *args, void *workspace, l4j_error *error) {
    (void)workspace;
    l4j_status status = l4j_check_positions(args, error);
    if (status != L4J_OK) return status;
    l4j_run(queue, rope_forward_task, (void *)args);
    return L4J_OK;
}

size_t L4J_NAME(rope_backward_workspace)(int threads, const l4j_rope *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(rope_backward)(l4j_queue *queue, const l4j_rope *args, void *workspace, l4j_error *error) {
    (void)workspace;
    l4j_status status = l4j_check_positions(args, error);
    if (status != L4J_OK) return status;
    l4j_run(queue, rope_backward_task, (void *)args);
    return L4J_OK;
}
