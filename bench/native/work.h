// A piece of work that can be timed again and again: its operands are ready and live as long as `run`.
#pragma once

#include <functional>

#include "spec.h"

struct Work {
    std::function<void()> run;
    double flops = 0;  // useful ones, of one run
    double bytes = 0;  // that must move between memory and core, of one run; 0 where arithmetic is the limit
    double values = 0; // that are converted, of one run
};

Work make_product(const Spec &spec);    // gemm, who=ours: products.cpp
Work make_lora(const Spec &spec);       // lora: products.cpp
Work make_loss(const Spec &spec);       // loss: products.cpp
Work make_openblas(const Spec &spec);   // gemm, who=openblas: peers.cpp
Work make_onednn(const Spec &spec);     // gemm, who=onednn: peers.cpp
Work make_ggml(const Spec &spec);       // gemm, who=ggml: ggml.cpp
Work make_dequantize(const Spec &spec); // dequantize: quantized.cpp
Work make_quantize(const Spec &spec);   // quantize: quantized.cpp
Work make_limit(const Spec &spec);      // limit: limits.cpp
Work make_operation(const Spec &spec);  // every other family: operations.cpp

// Threads of the peers, which have one pool for the whole process.
void set_peer_threads(int threads);
// What the peers say about themselves, and the tier that they take: "0.3.21 … Zen".
std::string openblas_about();
std::string onednn_about();

// Key copies, default 1: so many weights that one run after another takes in turn. With more than the caches hold, each run reads its
// weight from memory, as a model of many layers does.
inline int64_t copies_of(const Spec &spec) { return spec.number("copies", 1); }
// With few rows reading the weight is the limit, with more it is arithmetic.
inline bool reads_weights(int64_t rows) { return rows <= 16; }
