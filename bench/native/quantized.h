// Quantized weights of random codes, and what is asked of them beside products.
#pragma once

#include "library.h"
#include "work.h"

// The parts of a weight of a scheme, as weight_create and quantize_forward want them.
struct QuantizedParts {
    int32_t scheme = 0;
    std::vector<int32_t> roles;
    std::vector<l4j_tensor> values;
    std::vector<std::shared_ptr<void>> memory;
    double bytes = 0; // of all parts
};

// L4J_SCHEME_... of a name such as "nf4", "gptq", "q4_k"; 0 where there is no such format.
int32_t scheme_of(const std::string &name);
QuantizedParts random_parts(int32_t scheme, int64_t rows, int64_t cols);
