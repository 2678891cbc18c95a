#include "codes_vector.cuh"

namespace l4j {

L4J_TILES_OF(Int8)
L4J_VECTOR_OF(Int8)

} // namespace l4j
