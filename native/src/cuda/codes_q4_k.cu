#include "codes_vector.cuh"

namespace l4j {

L4J_TILES_OF(Q4_K)
L4J_VECTOR_OF(Q4_K)

} // namespace l4j
