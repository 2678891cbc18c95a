/* axpby_forward. */
#include "rows.h"

static void axpby_stretch(const l4j_axpby *args, int64_t m, int64_t n, int64_t count) {
    float xs[ROWS_STRETCH], *y = rows_write(args->y, m, n);
    const float *x = rows_read(args->x, m, n, count, xs);
    v16 alpha = v16_set1(*args->alpha), beta = v16_set1(*args->beta);
    if (*args->beta == 0) {
#define AXPBY_SCALE(i, lanes) rows_store(y + i, v16_mul(alpha, rows_load(x + i, lanes)), lanes)
        ROWS_EACH(count, AXPBY_SCALE);
#undef AXPBY_SCALE
    } else {
#define AXPBY_ADD(i, lanes) \
    rows_store(y + i, v16_fma(beta, rows_load(y + i, lanes), v16_mul(alpha, rows_load(x + i, lanes))), lanes)
        ROWS_EACH(count, AXPBY_ADD);
#undef AXPBY_ADD
    }
}

static void axpby_forward_task(void *context, int thread, int threads) {
    const l4j_axpby *args = context;
    int64_t N = args->y->shape[1], begin, end;
    l4j_partition(args->y->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) axpby_stretch(args, m, n, l4j_min64(ROWS_STRETCH, N - n));
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
