/* What the kinds of weights share while they are made. */
#ifndef L4J_WEIGHT_H
#define L4J_WEIGHT_H

#include "api/check.h"

/* Runs the task on the queue's threads, or on this one where there is no queue. */
static inline void l4j_run_or_alone(l4j_queue *queue, l4j_task task, void *context) {
    if (queue) {
        l4j_run(queue, task, context);
    } else {
        task(context, 0, 1);
    }
}

/* Bits of the least magnitude that is NaN or Inf, in fp32 and where it is rounded to bf16. */
#define L4J_INF_IN_F32 0x7F800000u
#define L4J_INF_IN_BF16 0x7F7F8000u

/* The search for the first NaN or Inf, by all threads. */
typedef struct l4j_finite_check {
    const l4j_weight *weight;
    uint32_t f32_limit;    /* for values in F32: L4J_INF_IN_F32, or L4J_INF_IN_BF16 */
    _Atomic int64_t first; /* lowest index n * K + k of one; INT64_MAX where there is none */
} l4j_finite_check;
/* The lowest index of a NaN or Inf among n stored floats, -1 where there is none. */
int64_t l4j_first_nonfinite(const void *values, int32_t dtype, uint32_t f32_limit, int64_t n);
void l4j_found_nonfinite(l4j_finite_check *check, int64_t index);
/* L4J_ENUMERIC with row and column where one was found. */
l4j_status l4j_finite_result(const l4j_finite_check *check, l4j_error *error);

/* Memory that the weight owns, aligned to 64 bytes or more, with 64 zero bytes behind: a vector may be loaded past the end. */
l4j_status l4j_weight_memory(l4j_weight *w, int64_t bytes, l4j_error *error);

/* Fills in a quantized weight from its options. */
l4j_status l4j_weight_quantized(l4j_weight *w, l4j_queue *queue, const l4j_weight_options *options, l4j_error *error);

#endif
