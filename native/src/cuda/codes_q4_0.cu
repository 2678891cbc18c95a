#include "codes_few.cuh"

namespace l4j {

template cudaError_t launch_few<Q4_0>(const l4j_queue *, const LoraParams &, const CodedSet &, const Parts &, bool);

} // namespace l4j
