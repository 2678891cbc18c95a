/* adamw_step. */
#include "../values.h"
#include "real.h"

#define ADAMW_REAL real
#include "../adamw_update.h"

static void adamw_square_sum(void *context, const l4j_adamw_piece *piece) {
    l4j_adamw_task *task = context;
    const real *grad = (real *)task->args->groups[piece->group].grads[piece->tensor].data + piece->first;
    double lane[L4J_PANEL] = {0};
    for (int64_t i = 0; i < piece->count; i++) lane[i % L4J_PANEL] = fma(grad[i], grad[i], lane[i % L4J_PANEL]);
    for (int half = L4J_PANEL / 2; half >= 1; half /= 2) {
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    task->partial[piece->index] = lane[0];
}

static void adamw_arithmetic_real(const l4j_adamw_factors *f, int64_t count, const real *grad, real *param,
                                  real *exp_avg, real *exp_avg_sq) {
    for (int64_t i = 0; i < count; i++) {
        real g = grad[i] * (real)f->grad_scale;
        real p = param[i] * (real)f->decay;
        real m = real_fma((real)f->one_minus_beta1, g - exp_avg[i], exp_avg[i]);
        real v = real_fma(g * g, (real)f->one_minus_beta2, exp_avg_sq[i] * (real)f->beta2);
        real denominator = real_sqrt(v) / (real)f->sqrt_correction2 + (real)f->epsilon;
        exp_avg[i] = m;
        exp_avg_sq[i] = v;
        param[i] = real_fma(m / denominator, (real)f->negative_step, p);
    }
}

static void adamw_update(void *context, const l4j_adamw_piece *piece) {
    adamw_update_piece(context, piece, adamw_arithmetic_real);
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
