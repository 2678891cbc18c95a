/* quantize_forward: the portable code, compiled for the tier. */
#include "codes16.h"

#define QUANT_F16(h) _cvtsh_ss(h)
#define QUANT_TO_F16(x) _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#include "../quantize.h"

size_t L4J_NAME(quantize_forward_workspace)(int threads, const l4j_quantize *args) {
    (void)threads;
    return quantize_workspace(args);
}

l4j_status L4J_NAME(quantize_forward)(l4j_queue *queue, const l4j_quantize *args, void *workspace, l4j_error *error) {
    return quantize_run(queue, args, workspace, error);
}
