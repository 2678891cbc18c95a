#include "codes_vector.cuh"

namespace l4j {

L4J_TILES_OF(Int4)
L4J_VECTOR_OF(Int4)

} // namespace l4j
