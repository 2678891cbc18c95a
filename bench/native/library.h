// lora4j.h in a form that is short to use here: operands that own their memory, errors as exceptions.
#pragma once

#include <lora4j/lora4j.h>

#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "spec.h"

// Throws std::runtime_error with the library's message.
void must(l4j_status status, const l4j_error &error);

l4j_device *device(); // the CPU, opened once
l4j_device_info device_info();
int threads_of(const Spec &spec);
l4j_queue *queue(int threads); // one for each number of threads, made once

// Memory in which every value is between 0.5 and 1, of either sign.
std::shared_ptr<void> random_values(int32_t dtype, int64_t count, float scale = 1);

int32_t dtype_of(const std::string &name); // f32, bf16, f16
int32_t compute_of(const Spec &spec);      // key compute: f32 (default), bf16, int8
double bytes_of(int32_t dtype);

// Tensors that live as long as this does.
class Operands {
public:
    const l4j_tensor *operator()(const std::vector<int64_t> &shape, float scale = 1, int32_t dtype = L4J_F32);

private:
    std::vector<std::shared_ptr<void>> memory_;
    std::deque<l4j_tensor> tensors_;
};

using WeightHandle = std::shared_ptr<l4j_weight>;
// Weights [rows, cols] of random values. Keys: weight (f32, bf16, f16 or a format of quantized.cpp; default f32), layout (rows, packed;
// default rows), compute (what it is packed for).
WeightHandle random_weight(const Spec &spec, int64_t rows, int64_t cols);
double weight_bytes(const Spec &spec, int64_t rows, int64_t cols);

// A call of an operation with a workspace of the size that it asks for. `args` must outlive it.
template <typename Args, typename Size, typename Call>
std::function<void()> operation(l4j_queue *q, const Args &args, Size size, Call call) {
    l4j_error error = {};
    size_t bytes = 0;
    must(size(q, &args, &bytes, &error), error);
    std::shared_ptr<void> workspace(aligned_alloc(64, (bytes + 64) / 64 * 64), free);
    return [q, &args, bytes, call, workspace] {
        l4j_error failed = {};
        must(call(q, &args, workspace.get(), bytes, &failed), failed);
    };
}
#define OPERATION(name, q, args) operation(q, args, l4j_##name##_workspace, l4j_##name)
