/* rms_norm_forward and rms_norm_backward. */
#include "real.h"

static real rms_weight(const l4j_rms_norm *args, int64_t n) {
    return real_read(args->weight->data, args->weight->dtype, n * args->weight->stride[0]);
}

static void rms_norm_forward_task(void *context, int thread, int threads) {
    const l4j_rms_norm *args = context;
    int64_t N = args->x->shape[1], begin, end;
    l4j_partition(args->x->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        real lane[L4J_PANEL] = {0};
        for (int64_t n = 0; n < N; n++) {
            real h = *real_at2(args->x, m, n);
            if (args->residual) h += *real_at2(args->residual, m, n);
            if (args->h) *real_at2(args->h, m, n) = h;
            lane[n % L4J_PANEL] = real_fma(h, h, lane[n % L4J_PANEL]);
        }
        real mean = real_fold16(lane) / (real)N;
        real rstd = 1 / real_sqrt(mean + args->eps);
        *real_at1(args->rstd, m) = rstd;
        const l4j_tensor *h = args->h ? args->h : args->x;
        for (int64_t n = 0; n < N; n++) {
            real normed = *real_at2(h, m, n) * rstd;
            *real_at2(args->y, m, n) = normed * rms_weight(args, n);
        }
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
    l4j_run(queue, rms_norm_forward_task, (void *)args);
    return L4J_OK;
}

/* dweight: each thread owns columns, so that rows are added in ascending order. */
static void rms_norm_dweight_task(void *context, int thread, int threads) {
    const l4j_rms_norm *args = context;
    int64_t begin, end;
    l4j_partition(args->dy->shape[1], L4J_PANEL, thread, threads, &begin, &end);
    for (int64_t m = 0; m < args->dy->shape[0]; m++) {
        real rstd = *real_at1(args->rstd, m);
        for (int64_t n = begin; n < end; n++) {
            real normed = *real_at2(args->h, m, n) * rstd, *dw = real_at1(args->dweight, n);
            *dw = real_fma(*real_at2(args->dy, m, n), normed, *dw);
        }
    }
}

static void rms_norm_dx_task(void *context, int thread, int threads) {
    const l4j_rms_norm *args = context;
    int64_t N = args->dy->shape[1], begin, end;
    l4j_partition(args->dy->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        real lane[L4J_PANEL] = {0}, rstd = *real_at1(args->rstd, m);
        for (int64_t n = 0; n < N; n++) {
            real u = *real_at2(args->dy, m, n) * rms_weight(args, n);
            lane[n % L4J_PANEL] = real_fma(u, *real_at2(args->h, m, n), lane[n % L4J_PANEL]);
        }
        real c = real_fold16(lane) * rstd * rstd / (real)N;
        for (int64_t n = 0; n < N; n++) {
            real u = *real_at2(args->dy, m, n) * rms_weight(args, n);
            real dx = rstd * real_fma(-*real_at2(args->h, m, n), c, u);
            if (args->dresidual) dx = *real_at2(args->dresidual, m, n) + dx;
            *real_at2(args->dx, m, n) = dx;
        }
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
