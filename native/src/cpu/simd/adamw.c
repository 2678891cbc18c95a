/* adamw_step: one pass over the gradients for the norms, one over everything. */
#include "../values.h"
#include "rows.h"

#define ADAMW_REAL float
#include "../adamw_update.h"

/* Sixteen fp64 lanes in four registers. */
static void adamw_square_sum(void *context, const l4j_adamw_piece *piece) {
    l4j_adamw_task *task = context;
    const float *grad = (const float *)task->args->groups[piece->group].grads[piece->tensor].data + piece->first;
    __m256d sum[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    int64_t i = 0;
    for (; i + L4J_PANEL <= piece->count; i += L4J_PANEL) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            __m256d g = _mm256_cvtps_pd(_mm_loadu_ps(grad + i + 4 * q));
            sum[q] = _mm256_fmadd_pd(g, g, sum[q]);
        }
    }
    double lane[L4J_PANEL];
    for (int q = 0; q < 4; q++) _mm256_storeu_pd(lane + 4 * q, sum[q]);
    for (; i < piece->count; i++) lane[i % L4J_PANEL] = fma(grad[i], grad[i], lane[i % L4J_PANEL]);
    for (int half = L4J_PANEL / 2; half >= 1; half /= 2) {
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    task->partial[piece->index] = lane[0];
}

static void adamw_arithmetic_v16(const l4j_adamw_factors *f, int64_t count, const float *grad, float *param,
                                 float *exp_avg, float *exp_avg_sq) {
    v16 grad_scale = v16_set1((float)f->grad_scale), decay = v16_set1((float)f->decay);
    v16 one_minus_beta1 = v16_set1((float)f->one_minus_beta1), beta2 = v16_set1((float)f->beta2);
    v16 one_minus_beta2 = v16_set1((float)f->one_minus_beta2), epsilon = v16_set1((float)f->epsilon);
    v16 sqrt_correction2 = v16_set1((float)f->sqrt_correction2), negative_step = v16_set1((float)f->negative_step);
#define ADAMW_UPDATE(i, lanes)                                                                                    \
    do {                                                                                                          \
        v16 g = v16_mul(rows_load(grad + i, lanes), grad_scale), p = v16_mul(rows_load(param + i, lanes), decay); \
        v16 m = rows_load(exp_avg + i, lanes);                                                                    \
        m = v16_fma(one_minus_beta1, v16_sub(g, m), m);                                                           \
        v16 v = v16_mul(rows_load(exp_avg_sq + i, lanes), beta2);                                                 \
        v = v16_fma(v16_mul(g, g), one_minus_beta2, v);                                                           \
        v16 denominator = v16_add(v16_div(v16_sqrt(v), sqrt_correction2), epsilon);                               \
        rows_store(exp_avg + i, m, lanes);                                                                        \
        rows_store(exp_avg_sq + i, v, lanes);                                                                     \
        rows_store(param + i, v16_fma(v16_div(m, denominator), negative_step, p), lanes);                         \
    } while (0)
    ROWS_EACH(count, ADAMW_UPDATE);
#undef ADAMW_UPDATE
}

static void adamw_update(void *context, const l4j_adamw_piece *piece) {
    adamw_update_piece(context, piece, adamw_arithmetic_v16);
}

static void adamw_task(void *context, int thread, int threads) {
    l4j_adamw_run(context, thread, threads, adamw_square_sum, adamw_update);
}

size_t L4J_NAME(adamw_step_workspace)(int threads, const l4j_adamw *args) {
    (void)threads;
    return l4j_adamw_layout(args, NULL, &(l4j_adamw_task){0});
}

l4j_status L4J_NAME(adamw_step)(l4j_queue *queue, const l4j_adamw *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_adamw_hyper(args, error);
    if (status != L4J_OK) return status;
    l4j_adamw_task task = {.pool = queue->pool};
    l4j_adamw_layout(args, workspace, &task);
    l4j_run(queue, adamw_task, &task);
    return L4J_OK;
}
