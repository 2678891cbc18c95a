#include "codes_few.cuh"
#include "codes_tile.cuh"
#include "map4_vector.cuh"

namespace l4j {

template cudaError_t launch_few<Map4>(const l4j_queue *, const LoraParams &, const CodedSet &, const Parts &, bool);
template cudaError_t launch_some<Map4>(const l4j_queue *, const LoraParams &, const CodedSet &, bool);

} // namespace l4j
