/* rms_norm_forward and rms_norm_backward: two passes over a row, the second out of L1. */
#include "rows.h"

#include <math.h>

/* ---- forward ---- */

/* h = x + residual, written where it is wanted; returns the sum of squares so far. */
static v16 rms_add(const l4j_rms_norm *args, int64_t m, int64_t n, int64_t count, v16 sum) {
    float xs[ROWS_STRETCH], rs[ROWS_STRETCH];
    const float *x = rows_read(args->x, m, n, count, xs);
    const float *residual = args->residual ? rows_read(args->residual, m, n, count, rs) : NULL;
    float *h = args->h ? rows_write(args->h, m, n) : NULL;
#define RMS_ADD(i, lanes)                                                      \
    do {                                                                       \
        v16 value = rows_load(x + i, lanes);                                   \
        if (residual) value = v16_add(value, rows_load(residual + i, lanes));  \
        if (h) rows_store(h + i, value, lanes);                                \
        sum = v16_fma(value, value, sum); /* a square of +0 changes nothing */ \
    } while (0)
    ROWS_EACH(count, RMS_ADD);
#undef RMS_ADD
    return sum;
}

static void rms_scale(const l4j_rms_norm *args, int64_t m, int64_t n, int64_t count, float rstd) {
    float hs[ROWS_STRETCH], ws[ROWS_STRETCH], *y = rows_write(args->y, m, n);
    const float *h = rows_read(args->h ? args->h : args->x, m, n, count, hs);
    const float *weight = rows_read_stored(args->weight, n, count, ws);
    v16 factor = v16_set1(rstd);
    const float *x_next = rows_next(args->x, m, n), *residual_next = rows_next(args->residual, m, n);
#define RMS_SCALE(i, lanes)                                                      \
    do {                                                                         \
        __builtin_prefetch(x_next + i);                                          \
        if (residual_next) __builtin_prefetch(residual_next + i);                \
        v16 normed = v16_mul(rows_load(h + i, lanes), factor);                   \
        rows_store(y + i, v16_mul(normed, rows_load(weight + i, lanes)), lanes); \
    } while (0)
    ROWS_EACH(count, RMS_SCALE);
#undef RMS_SCALE
}

static void rms_norm_forward_task(void *context, int thread, int threads) {
    const l4j_rms_norm *args = context;
    int64_t N = args->x->shape[1], begin, end;
    l4j_partition(args->x->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        v16 sum = v16_zero();
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) sum = rms_add(args, m, n, l4j_min64(ROWS_STRETCH, N - n), sum);
        float rstd = 1 / sqrtf(v16_sum(sum) / (float)N + args->eps);
        ((float *)args->rstd->data)[m * args->rstd->stride[0]] = rstd;
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) rms_scale(args, m, n, l4j_min64(ROWS_STRETCH, N - n), rstd);
    }
}

size_t L4J_NAME(rms_norm_forward_workspace)(int threads, const l4j_rms_norm *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(rms_norm_forward)(l4j_queue *queue, const l4j_rms_norm *args, void *workspace, l4j_error *error) {
    (void)workspace;
    (void)error;
    l4j_run_work(queue, (double)(args->x->shape[0] * args->x->shape[1]) * L4J_ELEMENT_WORK, rms_norm_forward_task,
                 (void *)args);
    return L4J_OK;
}

/* ---- backward ---- */

static float rms_rstd(const l4j_rms_norm *args, int64_t m) {
    return ((const float *)args->rstd->data)[m * args->rstd->stride[0]];
}

/* dweight of columns [begin, end): each thread owns columns, so that rows are added in ascending order. */
static void rms_norm_dweight_task(void *context, int thread, int threads) {
    const l4j_rms_norm *args = context;
    int64_t M = args->dy->shape[0], begin, end;
    l4j_partition(args->dy->shape[1], L4J_PANEL, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n += ROWS_STRETCH) {
        int64_t count = l4j_min64(ROWS_STRETCH, end - n);
        float dys[ROWS_STRETCH], hs[ROWS_STRETCH], *dweight = (float *)args->dweight->data + n;
        for (int64_t m = 0; m < M; m++) {
            const float *dy = rows_read(args->dy, m, n, count, dys), *h = rows_read(args->h, m, n, count, hs);
            v16 rstd = v16_set1(rms_rstd(args, m));
#define RMS_DWEIGHT(i, lanes)                                                                                     \
    rows_store(                                                                                                   \
        dweight + i,                                                                                              \
        v16_fma(rows_load(dy + i, lanes), v16_mul(rows_load(h + i, lanes), rstd), rows_load(dweight + i, lanes)), \
        lanes)
            ROWS_EACH(count, RMS_DWEIGHT);
#undef RMS_DWEIGHT
        }
    }
}

/* Tree sum of fl(dy · weight) · h, so far. */
static v16 rms_dot(const l4j_rms_norm *args, int64_t m, int64_t n, int64_t count, v16 sum) {
    float dys[ROWS_STRETCH], hs[ROWS_STRETCH], ws[ROWS_STRETCH];
    const float *dy = rows_read(args->dy, m, n, count, dys), *h = rows_read(args->h, m, n, count, hs);
    const float *weight = rows_read_stored(args->weight, n, count, ws);
#define RMS_DOT(i, lanes)                                                        \
    do {                                                                         \
        v16 u = v16_mul(rows_load(dy + i, lanes), rows_load(weight + i, lanes)); \
        sum = rows_sum_fma(u, rows_load(h + i, lanes), sum, lanes);              \
    } while (0)
    ROWS_EACH(count, RMS_DOT);
#undef RMS_DOT
    return sum;
}

static void rms_dx(const l4j_rms_norm *args, int64_t m, int64_t n, int64_t count, float rstd, float c) {
    float dys[ROWS_STRETCH], hs[ROWS_STRETCH], ws[ROWS_STRETCH], rs[ROWS_STRETCH], *dx = rows_write(args->dx, m, n);
    const float *dy = rows_read(args->dy, m, n, count, dys), *h = rows_read(args->h, m, n, count, hs);
    const float *weight = rows_read_stored(args->weight, n, count, ws);
    const float *dresidual = args->dresidual ? rows_read(args->dresidual, m, n, count, rs) : NULL;
    v16 factor = v16_set1(rstd), mean = v16_set1(c);
    const float *dy_next = rows_next(args->dy, m, n), *h_next = rows_next(args->h, m, n);
#define RMS_DX(i, lanes)                                                         \
    do {                                                                         \
        __builtin_prefetch(dy_next + i);                                         \
        __builtin_prefetch(h_next + i);                                          \
        v16 u = v16_mul(rows_load(dy + i, lanes), rows_load(weight + i, lanes)); \
        v16 value = v16_mul(factor, v16_fnma(rows_load(h + i, lanes), mean, u)); \
        if (dresidual) value = v16_add(rows_load(dresidual + i, lanes), value);  \
        rows_store(dx + i, value, lanes);                                        \
    } while (0)
    ROWS_EACH(count, RMS_DX);
#undef RMS_DX
}

static void rms_norm_dx_task(void *context, int thread, int threads) {
    const l4j_rms_norm *args = context;
    int64_t N = args->dy->shape[1], begin, end;
    l4j_partition(args->dy->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        v16 sum = v16_zero();
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) sum = rms_dot(args, m, n, l4j_min64(ROWS_STRETCH, N - n), sum);
        float rstd = rms_rstd(args, m), c = v16_sum(sum) * rstd * rstd / (float)N;
        for (int64_t n = 0; n < N; n += ROWS_STRETCH) rms_dx(args, m, n, l4j_min64(ROWS_STRETCH, N - n), rstd, c);
    }
}

size_t L4J_NAME(rms_norm_backward_workspace)(int threads, const l4j_rms_norm *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(rms_norm_backward)(l4j_queue *queue, const l4j_rms_norm *args, void *workspace, l4j_error *error) {
    (void)workspace;
    (void)error;
    if (args->dweight) l4j_run(queue, rms_norm_dweight_task, (void *)args); /* before dx, which may overwrite dy */
    l4j_run(queue, rms_norm_dx_task, (void *)args);
    return L4J_OK;
}
