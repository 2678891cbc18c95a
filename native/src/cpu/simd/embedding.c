/* embedding_forward and embedding_backward. */
#include "../values.h"
#include "weight_row.h"

static void embedding_forward_task(void *context, int thread, int threads) {
    const l4j_embedding *args = context;
    int64_t begin, end;
    l4j_partition(args->out->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++)
        weight_row(args->weight, args->ids[m], (float *)args->out->data + m * args->out->stride[0]);
}

size_t L4J_NAME(embedding_forward_workspace)(int threads, const l4j_embedding *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(embedding_forward)(l4j_queue *queue, const l4j_embedding *args, void *workspace, l4j_error *error) {
    (void)workspace;
    l4j_status status = l4j_check_ids(args, false, error);
    if (status != L4J_OK) return status;
    l4j_run_work(queue, (double)(args->out->shape[0] * args->out->shape[1]) * L4J_ELEMENT_WORK, embedding_forward_task,
                 (void *)args);
    return L4J_OK;
}

/* Each thread owns columns, so that a row which occurs twice is added in ascending order without locks. */
static void embedding_backward_task(void *context, int thread, int threads) {
    const l4j_embedding *args = context;
    int64_t begin, end;
    l4j_partition(args->dout->shape[1], L4J_PANEL, thread, threads, &begin, &end);
    const l4j_tensor *dout = args->dout, *dweight = args->dweight;
    for (int64_t m = 0; m < dout->shape[0]; m++) {
        const float *from = (const float *)dout->data + m * dout->stride[0];
        float *to = (float *)dweight->data + args->ids[m] * dweight->stride[0];
        int64_t n = begin;
        for (; n + L4J_PANEL <= end && dout->stride[1] == 1; n += L4J_PANEL) {
            v16_store(to + n, v16_add(v16_load(to + n), v16_load(from + n)));
        }
        for (; n < end; n++) to[n] += from[n * dout->stride[1]];
    }
}

size_t L4J_NAME(embedding_backward_workspace)(int threads, const l4j_embedding *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(embedding_backward)(l4j_queue *queue, const l4j_embedding *args, void *workspace,
                                        l4j_error *error) {
    (void)workspace;
    l4j_status status = l4j_check_ids(args, true, error);
    if (status != L4J_OK) return status;
    l4j_run(queue, embedding_backward_task, (void *)args);
    return L4J_OK;
}
