/* quantize_forward, portable. */
#include "quant/codes16.h"
#include "real.h"

#define QUANT_F16(h) l4j_f16_to_f32(h)
#define QUANT_TO_F16(x) l4j_f32_to_f16(x)
#include "../quantize.h"

size_t L4J_NAME(quantize_forward_workspace)(int threads, const l4j_quantize *args) {
    (void)threads;
    return quantize_workspace(args);
}

l4j_status L4J_NAME(quantize_forward)(l4j_queue *queue, const l4j_quantize *args, void *workspace, l4j_error *error) {
    return quantize_run(queue, args, workspace, error);
}
