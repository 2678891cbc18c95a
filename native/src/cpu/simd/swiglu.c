/* swiglu_forward and swiglu_backward. */
#include "rows.h"
#include "vexp.h"

/* 1 / (1 + exp(−g)) */
static inline v16 swiglu_sigmoid(v16 g) {
    v16 one = v16_set1(1.0f);
    return v16_div(one, v16_add(one, v16_exp(v16_neg(g))));
}

static void swiglu_forward_stretch(const l4j_swiglu *args, int64_t m, int64_t n, int64_t count) {
    float gates[ROWS_STRETCH], ups[ROWS_STRETCH], *out = rows_write(args->out, m, n);
    const float *gate = rows_read(args->gate, m, n, count, gates), *up = rows_read(args->up, m, n, count, ups);
#define SWIGLU_FORWARD(i, lanes)                                             \
    do {                                                                     \
        v16 g = rows_load(gate + i, lanes);                                  \
        v16 silu = v16_mul(g, swiglu_sigmoid(g));                            \
        rows_store(out + i, v16_mul(silu, rows_load(up + i, lanes)), lanes); \
    } while (0)
    ROWS_EACH(count, SWIGLU_FORWARD);
#undef SWIGLU_FORWARD
}

static void swiglu_forward_task(void *context, int thread, int threads) {
    const l4j_swiglu *args = context;
    int64_t N = args->gate->shape[1], begin, end;
    l4j_partition(args->gate->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) {
            swiglu_forward_stretch(args, m, n, l4j_min64(ROWS_STRETCH, N - n));
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
    l4j_run_work(queue, (double)(args->gate->shape[0] * args->gate->shape[1]) * L4J_ELEMENT_WORK, swiglu_forward_task,
                 (void *)args);
    return L4J_OK;
}

static void swiglu_backward_stretch(const l4j_swiglu *args, int64_t m, int64_t n, int64_t count) {
    float gates[ROWS_STRETCH], ups[ROWS_STRETCH], douts[ROWS_STRETCH];
    const float *gate = rows_read(args->gate, m, n, count, gates), *up = rows_read(args->up, m, n, count, ups);
    const float *dout = rows_read(args->dout, m, n, count, douts);
    float *dgate = rows_write(args->dgate, m, n), *dup = rows_write(args->dup, m, n);
    v16 one = v16_set1(1.0f);
#define SWIGLU_BACKWARD(i, lanes)                                                                         \
    do {                                                                                                  \
        v16 g = rows_load(gate + i, lanes), u = rows_load(up + i, lanes), d = rows_load(dout + i, lanes); \
        v16 s = swiglu_sigmoid(g), dsilu = v16_mul(s, v16_fma(g, v16_sub(one, s), one));                  \
        rows_store(dup + i, v16_mul(d, v16_mul(g, s)), lanes);                                            \
        rows_store(dgate + i, v16_mul(v16_mul(d, u), dsilu), lanes);                                      \
    } while (0)
    ROWS_EACH(count, SWIGLU_BACKWARD);
#undef SWIGLU_BACKWARD
}

static void swiglu_backward_task(void *context, int thread, int threads) {
    const l4j_swiglu *args = context;
    int64_t N = args->gate->shape[1], begin, end;
    l4j_partition(args->gate->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) {
            swiglu_backward_stretch(args, m, n, l4j_min64(ROWS_STRETCH, N - n));
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
