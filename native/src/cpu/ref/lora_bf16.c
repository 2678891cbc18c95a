/* lora_forward and lora_backward of L4J_COMPUTE_BF16, straight from the contract: every output is one chain of bf16 products. */
#include "chain.h"
#include "lora.h"

/* s_g of row m; operands of K columns go through `row`. */
static void lora_s(const l4j_lora *args, int64_t adapter, int g, int64_t m, real *row) {
    int64_t K = args->x->shape[1], i = lora_index(args, adapter, g);
    if (i < 0) return;
    l4j_dropout drop = l4j_lora_dropout(args, (int)adapter, g);
    real c = l4j_lora_factor(args->scaling[i], args->dropout_p);
    lora_masked_row(args, &drop, m, 0, K, row);
    for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
        bf16_chain chain = bf16_start(0);
        for (int64_t k = 0; k < K; k++)
            bf16_step(&chain, bf16_operand(row[k]), bf16_operand(*real_at2(&args->a[i], r, k)));
        *real_at2(&args->s[g], m, r) = bf16_end(&chain) * c;
    }
}

void lora_bf16_forward(const lora_task *task, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t K = args->x->shape[1], begin, end;
    l4j_partition(args->x->shape[0], 1, thread, threads, &begin, &end);
    real *row = task->rows + thread * K;
    for (int g = 0; g < args->projection_count; g++) {
        const l4j_weight *w = args->weights[g];
        const l4j_tensor *bias = args->biases && args->biases[g].data ? &args->biases[g] : NULL;
        for (int64_t m = begin; m < end; m++) lora_s(args, task->adapter[m], g, m, row);
        for (int64_t n = 0; n < w->rows; n++) {
            for (int64_t k = 0; k < K; k++) row[k] = bf16_operand(real_weight(w, n, k));
            real start = bias ? real_read(bias->data, bias->dtype, n * bias->stride[0]) : 0;
            for (int64_t m = begin; m < end; m++) {
                bf16_chain chain = bf16_start(start);
                for (int64_t k = 0; k < K; k++) bf16_step(&chain, bf16_operand(*real_at2(args->x, m, k)), row[k]);
                bf16_end(&chain);
                int64_t i = lora_index(args, task->adapter[m], g), R = i < 0 ? 0 : args->a[i].shape[0];
                for (int64_t r = 0; r < R; r++) {
                    bf16_step(&chain, bf16_operand(*real_at2(&args->s[g], m, r)),
                              bf16_operand(*real_at2(&args->b[i], n, r)));
                }
                *real_at2(&args->y[g], m, n) = bf16_end(&chain);
            }
        }
    }
}

/* ---- backward ---- */

/* ds = c · dy · B for rows [begin, end). */
void lora_bf16_ds(const lora_task *task, int g, real *ds, int64_t width, int64_t begin, int64_t end) {
    const l4j_lora *args = task->args;
    for (int64_t m = begin; m < end; m++) {
        int64_t i = lora_index(args, task->adapter[m], g);
        if (i < 0) continue;
        real c = l4j_lora_factor(args->scaling[i], args->dropout_p);
        for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
            bf16_chain chain = bf16_start(0);
            for (int64_t n = 0; n < args->weights[g]->rows; n++) {
                bf16_step(&chain, bf16_operand(*real_at2(&args->dy[g], m, n)),
                          bf16_operand(*real_at2(&args->b[i], n, r)));
            }
            ds[m * width + r] = bf16_end(&chain) * c;
        }
    }
}

/* dB += dyᵀ · s over the adapter's rows, for rows n of this thread. */
void lora_bf16_db(const lora_task *task, int64_t adapter, int g, int thread, int threads) {
    const l4j_lora *args = task->args;
    int64_t i = lora_index(args, adapter, g), begin, end;
    l4j_partition(args->weights[g]->rows, 1, thread, threads, &begin, &end);
    for (int64_t n = begin; n < end; n++) {
        for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
            real *out = real_at2(&args->db[i], n, r);
            bf16_chain chain = bf16_start(args->flags & L4J_LORA_ACCUMULATE_GRADS ? *out : 0);
            for (int64_t m = 0; m < args->x->shape[0]; m++) {
                if (task->adapter[m] != adapter) continue;
                bf16_step(&chain, bf16_operand(*real_at2(&args->dy[g], m, n)),
                          bf16_operand(*real_at2(&args->s[g], m, r)));
            }
            *out = bf16_end(&chain);
        }
    }
}

/* dA += dsᵀ · (mask ⊙ x) over the adapter's rows, for columns k of this thread. */
void lora_bf16_da(const lora_task *task, int64_t adapter, int g, const real *ds, int64_t width, real *row, int thread,
                  int threads) {
    const l4j_lora *args = task->args;
    int64_t i = lora_index(args, adapter, g), begin, end;
    l4j_dropout drop = l4j_lora_dropout(args, (int)adapter, g);
    l4j_partition(args->x->shape[1], L4J_DROPOUT_BLOCK, thread, threads, &begin, &end);
    for (int64_t k0 = begin; k0 < end; k0 += L4J_DROPOUT_BLOCK) {
        int64_t count = l4j_min64(L4J_DROPOUT_BLOCK, end - k0);
        for (int64_t r = 0; r < args->a[i].shape[0]; r++) {
            bf16_chain chain[L4J_DROPOUT_BLOCK];
            real *out = real_at2(&args->da[i], r, k0);
            for (int64_t k = 0; k < count; k++)
                chain[k] = bf16_start(args->flags & L4J_LORA_ACCUMULATE_GRADS ? out[k] : 0);
            for (int64_t m = 0; m < args->x->shape[0]; m++) {
                if (task->adapter[m] != adapter) continue;
                lora_masked_row(args, &drop, m, k0, k0 + count, row);
                for (int64_t k = 0; k < count; k++)
                    bf16_step(&chain[k], bf16_operand(ds[m * width + r]), bf16_operand(row[k]));
            }
            for (int64_t k = 0; k < count; k++) out[k] = bf16_end(&chain[k]);
        }
    }
}

/* The low-rank part of dx[m, k] of one projection, before dropout. */
real lora_bf16_low_rank(const l4j_lora *args, int64_t i, const real *ds, int64_t k) {
    bf16_chain chain = bf16_start(0);
    for (int64_t r = 0; r < args->a[i].shape[0]; r++)
        bf16_step(&chain, bf16_operand(ds[r]), bf16_operand(*real_at2(&args->a[i], r, k)));
    return bf16_end(&chain);
}

/* dx += Σ_g dy_g · W_g for row m, whose low-rank part is there. */
void lora_bf16_dx(const l4j_lora *args, int64_t m) {
    for (int64_t k = 0; k < args->x->shape[1]; k++) {
        real *out = real_at2(args->dx, m, k);
        bf16_chain chain = bf16_start(*out);
        for (int g = 0; g < args->projection_count; g++) {
            for (int64_t n = 0; n < args->weights[g]->rows; n++) {
                bf16_step(&chain, bf16_operand(*real_at2(&args->dy[g], m, n)),
                          bf16_operand(real_weight(args->weights[g], n, k)));
            }
            bf16_end(&chain);
        }
        *out = chain.acc;
    }
}
