#include "codes_few.cuh"
#include "codes_tile.cuh"

namespace l4j {

template cudaError_t launch_few<Q6_K>(const l4j_queue *, const LoraParams &, const CodedSet &, const Parts &, bool);
template cudaError_t launch_some<Q6_K>(const l4j_queue *, const LoraParams &, const CodedSet &, bool);

} // namespace l4j
