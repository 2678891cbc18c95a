/* The operations of the CUDA library, in the form that the table of kernels wants. */
#pragma once

#include "common.cuh"

namespace l4j {

#define OP(op, args_t)                                      \
    size_t op##_workspace(int threads, const args_t *args); \
    l4j_status op(l4j_queue *queue, const args_t *args, void *workspace, l4j_error *error);
L4J_OPERATIONS(OP)
#undef OP

/* The table's entries for weights: weight.cu. */
l4j_status weight_create(l4j_weight *weight, const l4j_tensor *values, bool check, int64_t *first, l4j_error *error);
l4j_status weight_create_coded(l4j_weight *weight, const l4j_weight_options *options, bool check, int64_t *first,
                               l4j_error *error);

} // namespace l4j
