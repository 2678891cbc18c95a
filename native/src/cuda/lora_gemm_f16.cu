#include "lora_gemm.cuh"

namespace l4j {

cudaError_t launch_gemm_f16(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c) {
    return c.fast ? launch_fast<f16>(queue, p, c) : launch_any<f16>(queue, p, c);
}

} // namespace l4j
