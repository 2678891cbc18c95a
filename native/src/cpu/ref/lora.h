/* What lora.c and lora_bf16.c share: the walk over rows, projections and adapters is one, the products are two. */
#ifndef L4J_REF_LORA_H
#define L4J_REF_LORA_H

#include "../dropout.h"
#include "../int8.h"
#include "../values.h"
#include "real.h"

typedef struct lora_task {
    l4j_queue *queue;
    const l4j_lora *args;
    int32_t *adapter;     /* [M] of each row, -1 = none */
    real *ds;             /* [G][M, widest R_g], backward */
    real *rows;           /* [threads][K]: one row of a weight or of masked x */
    l4j_int8_unit *units; /* [threads][K / 32]: a row of x, of L4J_COMPUTE_INT8 */
} lora_task;

#define lora_index L4J_NAME(lora_index)
#define lora_masked_row L4J_NAME(lora_masked_row)
#define lora_int8_row L4J_NAME(lora_int8_row)
#define lora_int8_base L4J_NAME(lora_int8_base)
#define lora_bf16_forward L4J_NAME(lora_bf16_forward)
#define lora_bf16_ds L4J_NAME(lora_bf16_ds)
#define lora_bf16_db L4J_NAME(lora_bf16_db)
#define lora_bf16_da L4J_NAME(lora_bf16_da)
#define lora_bf16_low_rank L4J_NAME(lora_bf16_low_rank)
#define lora_bf16_dx L4J_NAME(lora_bf16_dx)

/* A and B of an adapter on a projection, at this place of their lists; -1 where there is none. */
int64_t lora_index(const l4j_lora *args, int64_t adapter, int g);
/* out[k - k0] = kept ? x[m, k] : +0 for k in [k0, k1); k0 is a multiple of L4J_DROPOUT_BLOCK. */
void lora_masked_row(const l4j_lora *args, const l4j_dropout *drop, int64_t m, int64_t k0, int64_t k1, real *out);

/* Row m of x as bytes, and the chain `acc` continued over its product with row n of a weight: L4J_COMPUTE_INT8. */
void lora_int8_row(const l4j_lora *args, int64_t m, l4j_int8_unit *units);
real lora_int8_base(const l4j_weight *w, int64_t n, const l4j_int8_unit *units, real acc);

/* The products of L4J_COMPUTE_BF16. */
void lora_bf16_forward(const lora_task *task, int thread, int threads);
void lora_bf16_ds(const lora_task *task, int g, real *ds, int64_t width, int64_t begin, int64_t end);
void lora_bf16_db(const lora_task *task, int64_t adapter, int g, int thread, int threads);
void lora_bf16_da(const lora_task *task, int64_t adapter, int g, const real *ds, int64_t width, real *row, int thread,
                  int threads);
real lora_bf16_low_rank(const l4j_lora *args, int64_t i, const real *ds, int64_t k);
void lora_bf16_dx(const l4j_lora *args, int64_t m);

#endif
