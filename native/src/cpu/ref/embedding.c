/* embedding_forward and embedding_backward. */
#include "../values.h"
#include "real.h"

static void embedding_forward_task(void *context, int thread, int threads) {
    const l4j_embedding *args = context;
    int64_t begin, end;
    l4j_partition(args->out->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) real_weight_row(args->weight, args->ids[m], real_at2(args->out, m, 0));
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
    l4j_run(queue, embedding_forward_task, (void *)args);
    return L4J_OK;
}

/* Each thread owns columns, so that a row which occurs twice is added in ascending order without locks. */
static void embedding_backward_task(void *context, int thread, int threads) {
    const l4j_embedding *args = context;
    int64_t begin, end;
    l4j_partition(args->dout->shape[1], L4J_PANEL, thread, threads, &begin, &end);
    for (int64_t m = 0; m < args->dout->shape[0]; m++) {
        for (int64_t n = begin; n < end; n++) *real_at2(args->dweight, args->ids[m], n) += *real_at2(args->dout, m, n);
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
