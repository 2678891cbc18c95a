/* axpby_forward. */
#include "real.h"

static void axpby_forward_task(void *context, int thread, int threads) {
    const l4j_axpby *args = context;
    real alpha = *args->alpha, beta = *args->beta;
    int64_t begin, end;
    l4j_partition(args->y->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < args->y->shape[1]; n++) {
            real scaled = alpha * *real_at2(args->x, m, n), *y = real_at2(args->y, m, n);
            *y = beta == 0 ? scaled : real_fma(beta, *y, scaled);
        }
    }
}

size_t L4J_NAME(axpby_forward_workspace)(int threads, const l4j_axpby *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(axpby_forward)(l4j_queue *queue, const l4j_axpby *args, void *workspace, l4j_error *error) {
    (void)workspace;
    (void)error;
    l4j_run(queue, axpby_forward_task, (void *)args);
    return L4J_OK;
}
