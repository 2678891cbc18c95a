#include "codes_vector.cuh"

namespace l4j {

L4J_TILES_OF(Q6_K)
L4J_VECTOR_OF(Q6_K)

} // namespace l4j
