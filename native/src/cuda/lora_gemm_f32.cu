#include "lora_gemm.cuh"

namespace l4j {

cudaError_t launch_gemm_f32(const l4j_queue *queue, const LoraParams &p, const GemmChoice &c) {
    return launch_any<float>(queue, p, c);
}

} // namespace l4j
