/* sample_forward: a few rows at a time, fp64 inside; every tier runs the reference kernel. */
#include "../internal.h"

size_t l4j_ref_sample_forward_workspace(int threads, const l4j_sample *args);
l4j_status l4j_ref_sample_forward(l4j_queue *queue, const l4j_sample *args, void *workspace, l4j_error *error);

size_t L4J_NAME(sample_forward_workspace)(int threads, const l4j_sample *args) {
    return l4j_ref_sample_forward_workspace(threads, args);
}

l4j_status L4J_NAME(sample_forward)(l4j_queue *queue, const l4j_sample *args, void *workspace, l4j_error *error) {
    return l4j_ref_sample_forward(queue, args, workspace, error);
}
