#include "codes_vector.cuh"

namespace l4j {

L4J_TILES_OF(Q8_0)
L4J_VECTOR_OF(Q8_0)

} // namespace l4j
