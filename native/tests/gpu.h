// The same tests on a GPU: which one there is, the dtype of its activations, and what arguments name.
#pragma once

#include <gtest/gtest.h>
#include <lora4j/lora4j.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace l4j {

// ---- which GPU ----

struct Gpu {
    l4j_device *device = nullptr;
    std::string missing; // why there is none
};
inline Gpu &gpu() {
    static Gpu one = [] {
        Gpu g;
        l4j_device_options options = {};
        options.struct_size = sizeof options;
        options.device_type = L4J_DEVICE_CUDA;
        l4j_error error = {};
        if (l4j_device_open(&options, &g.device, &error) != L4J_OK) g.missing = error.message;
        return g;
    }();
    return one;
}
inline bool has_gpu() { return gpu().device != nullptr; }

// The dtype that activations have on the GPU. Random values are rounded to it, so that every tier sees the same ones.
inline int32_t &gpu_dtype() {
    static int32_t dtype = L4J_F32;
    return dtype;
}

// The GPU's queues, with their devices.
inline std::map<const l4j_queue *, l4j_device *> &gpu_queues() {
    static std::map<const l4j_queue *, l4j_device *> all;
    return all;
}

// ---- 16-bit floats ----

inline uint16_t bf16_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(u >> 16 | 0x40);
    return static_cast<uint16_t>((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}
inline float bf16_value(uint16_t h) {
    uint32_t u = static_cast<uint32_t>(h) << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}
#if defined(__aarch64__)
using Float16 = __fp16;
#else
using Float16 = _Float16;
#endif
inline uint16_t narrow(float x, int32_t dtype) {
    if (dtype == L4J_BF16) return bf16_bits(x);
    Float16 h = static_cast<Float16>(x);
    uint16_t u;
    memcpy(&u, &h, 2);
    return u;
}
inline float widen(uint16_t u, int32_t dtype) {
    if (dtype == L4J_BF16) return bf16_value(u);
    Float16 h;
    memcpy(&h, &u, 2);
    return static_cast<float>(h);
}
inline float rounded(float x) { return gpu_dtype() == L4J_F32 ? x : widen(narrow(x, gpu_dtype()), gpu_dtype()); }

// ---- what the arguments name: visit(args, v) calls v for every tensor and every pointer to live values ----

template <class V> void visit(l4j_lora &a, V &v) {
    int64_t G = a.projection_count, all = a.adapter_count * G, M = a.x ? a.x->shape[0] : 0;
    v.activation(a.x);
    v.stored_list(a.biases, G);
    v.activation_list(a.a, all);
    v.activation_list(a.b, all);
    v.pointer(a.scaling, all);
    v.pointer(a.dropout_seed, 1);
    v.pointer(a.dropout_step, 1);
    v.pointer(a.token_index, M);
    v.pointer(a.module_id, G);
    v.pointer(a.adapter_id, a.adapter_count);
    v.pointer(a.segment_count, 1);
    v.pointer(a.segment_offsets, a.segment_capacity + 1);
    v.pointer(a.segment_adapters, a.segment_capacity);
    v.activation_list(a.y, G);
    v.activation_list(a.s, G);
    v.activation_list(a.dy, G);
    v.activation(a.dx);
    v.sum_list(a.da, all);
    v.sum_list(a.db, all);
}
template <class V> void visit(l4j_dequantize &a, V &v) { v.sum(a.out); }
template <class V> void visit(l4j_quantize &, V &) {} // the CPU's
template <class V> void visit(l4j_rms_norm &a, V &v) {
    for (auto t : {&a.x, &a.residual, &a.h, &a.y, &a.dy, &a.dresidual, &a.dx}) v.activation(*t);
    v.stored(a.weight);
    v.sum(a.rstd);
    v.sum(a.dweight);
}
template <class V> void visit(l4j_rope &a, V &v) {
    v.activation(a.src);
    v.activation(a.dst);
    v.sum(a.cosine);
    v.sum(a.sine);
    v.pointer(a.positions, a.src ? a.src->shape[0] : 0);
}
template <class V> void visit(l4j_attention &a, V &v) {
    v.pointer(a.q_offsets, a.sequences + 1);
    v.pointer(a.kv_starts, a.sequences);
    v.pointer(a.kv_lengths, a.sequences);
    for (auto t : {&a.q, &a.k, &a.v, &a.o, &a.d_o, &a.dq, &a.dk, &a.dv}) v.activation(*t);
    v.sum(a.lse);
}
template <class V> void visit(l4j_swiglu &a, V &v) {
    for (auto t : {&a.gate, &a.up, &a.out, &a.dout, &a.dgate, &a.dup}) v.activation(*t);
}
template <class V> void visit(l4j_embedding &a, V &v) {
    v.pointer(a.ids, a.out ? a.out->shape[0] : a.dout ? a.dout->shape[0] : 0);
    v.activation(a.out);
    v.activation(a.dout);
    v.sum(a.dweight);
}
template <class V> void visit(l4j_linear_cross_entropy &a, V &v) {
    int64_t M = a.x ? a.x->shape[0] : 0;
    v.activation(a.x);
    v.pointer(a.targets, M);
    v.pointer(a.row_weight, M);
    v.pointer(a.grad_scale, 1);
    v.pointer(a.step, 1);
    v.sum(a.loss);
    v.sum(a.lse);
    v.pointer(a.predicted, M);
    v.activation(a.dx);
    v.pointer(a.numeric, 1);
}
template <class V> void visit(l4j_adamw &a, V &v) {
    v.groups(a.groups, a.group_count);
    v.pointer(a.numeric, 1);
}
template <class V> void visit(l4j_axpby &a, V &v) {
    v.pointer(a.alpha, 1);
    v.pointer(a.beta, 1);
    v.activation(a.x);
    v.activation(a.y);
}
template <class V> void visit(l4j_sample &a, V &v) {
    v.sum(a.logits);
    v.pointer(a.hyper, 1);
    v.pointer(a.ids, a.logits ? a.logits->shape[0] : 0);
}

// Whether the CPU's oracle stores activations as the GPU does.
inline bool &oracle_rounds() {
    static bool rounds = false;
    return rounds;
}

// Rounds the activations that the arguments name to the GPU's dtype.
class Rounder {
public:
    template <class T> void pointer(T *&, int64_t) {}
    void activation(const l4j_tensor *&t) { activation_list(t, 1); }
    void activation_list(const l4j_tensor *&list, int64_t n) {
        for (int64_t i = 0; list && i < n; i++) {
            const l4j_tensor &t = list[i];
            if (t.data && t.dtype == L4J_F64 && t.ndim >= 1 && t.ndim <= 4) round(t, 0, static_cast<double *>(t.data));
        }
    }
    void sum(const l4j_tensor *&) {}
    void stored(const l4j_tensor *&) {}
    void sum_list(const l4j_tensor *&, int64_t) {}
    void stored_list(const l4j_tensor *&, int64_t) {}
    void groups(const l4j_adamw_group *&, int64_t) {}

private:
    static void round(const l4j_tensor &t, int dimension, double *at) {
        if (dimension == t.ndim) {
            if (!std::isnan(*at)) *at = rounded(static_cast<float>(*at));
            return;
        }
        for (int64_t i = 0; i < t.shape[dimension]; i++) round(t, dimension + 1, at + i * t.stride[dimension]);
    }
};

// What the oracle reads and has written, as 16 bits hold it: a later operation then starts from the values that the GPU's starts from,
// and cancellation in it does not blow up how earlier results were rounded.
template <class Args> void store_as_gpu(const Args *args) {
    if (!oracle_rounds() || !args) return;
    Args own = *args;
    Rounder rounder;
    visit(own, rounder);
}

// Calls check(dtype, tolerance) for each dtype of activations where there is a GPU. fp32 keeps the tolerance of the CPU's tests. In 16
// bits an output has one rounding (relative error 1.7e-3 in BF16, 2.1e-4 in F16) and what went into it had one or two inside of the
// operation. Sums that cancel are measured against their terms where these are rounded (attention_case.h).
inline void on_gpu(double tolerance, const std::function<void(double)> &check) {
    if (!has_gpu()) return;
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        gpu_dtype() = dtype;
        oracle_rounds() = dtype != L4J_F32;
        SCOPED_TRACE(dtype == L4J_F32 ? "GPU, F32" : dtype == L4J_BF16 ? "GPU, BF16" : "GPU, F16");
        check(dtype == L4J_F32 ? tolerance : dtype == L4J_BF16 ? 4.5e-3 : 6e-4);
    }
    gpu_dtype() = L4J_F32;
    oracle_rounds() = false;
}

} // namespace l4j
