/* dequantize_forward: rows of a weight as plain floats. */
#include "weight_row.h"

static void dequantize_task(void *context, int thread, int threads) {
    const l4j_dequantize *args = context;
    int64_t begin, end;
    l4j_partition(args->out->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++)
        weight_row(args->weight, args->row_begin + m, (float *)args->out->data + m * args->out->stride[0]);
}

size_t L4J_NAME(dequantize_forward_workspace)(int threads, const l4j_dequantize *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(dequantize_forward)(l4j_queue *queue, const l4j_dequantize *args, void *workspace,
                                        l4j_error *error) {
    (void)workspace;
    (void)error;
    l4j_run(queue, dequantize_task, (void *)args);
    return L4J_OK;
}
