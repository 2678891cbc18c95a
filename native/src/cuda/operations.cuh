/* The operations of the CUDA library, in the form that the table of kernels wants. */
#pragma once

#include "common.cuh"

namespace l4j {

#define OP(op, args_t)                                      \
    size_t op##_workspace(int threads, const args_t *args); \
    l4j_status op(l4j_queue *queue, const args_t *args, void *workspace, l4j_error *error);
L4J_OPERATIONS(OP)
#undef OP

} // namespace l4j
