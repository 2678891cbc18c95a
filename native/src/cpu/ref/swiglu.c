/* swiglu_forward and swiglu_backward. */
#include "real.h"

static void swiglu_forward_task(void *context, int thread, int threads) {
    const l4j_swiglu *args = context;
    int64_t begin, end;
    l4j_partition(args->gate->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < args->gate->shape[1]; n++) {
            real g = *real_at2(args->gate, m, n), s = 1 / (1 + real_exp(-g)), silu = g * s;
            *real_at2(args->out, m, n) = silu * *real_at2(args->up, m, n);
        }
    }
}

size_t L4J_NAME(swiglu_forward_workspace)(int threads, const l4j_swiglu *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(swiglu_forward)(l4j_queue *queue, const l4j_swiglu *args, void *workspace, l4j_error *error) {
    (void)workspace;
    (void)error;
    l4j_run(queue, swiglu_forward_task, (void *)args);
    return L4J_OK;
}

static void swiglu_backward_task(void *context, int thread, int threads) {
    const l4j_swiglu *args = context;
    int64_t begin, end;
    l4j_partition(args->gate->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < args->gate->shape[1]; n++) {
            real g = *real_at2(args->gate, m, n), up = *real_at2(args->up, m, n), dout = *real_at2(args->dout, m, n);
            real s = 1 / (1 + real_exp(-g)), silu = g * s, dsilu = s * real_fma(g, 1 - s, 1);
            *real_at2(args->dup, m, n) = dout * silu;
            *real_at2(args->dgate, m, n) = dout * up * dsilu;
        }
    }
}

size_t L4J_NAME(swiglu_backward_workspace)(int threads, const l4j_swiglu *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(swiglu_backward)(l4j_queue *queue, const l4j_swiglu *args, void *workspace, l4j_error *error) {
    (void)workspace;
    (void)error;
    l4j_run(queue, swiglu_backward_task, (void *)args);
    return L4J_OK;
}
