// A group of projections with seeded operands, built for any tier; what lora_test and gemm_test run.
#pragma once

#include "support.h"

namespace l4j {

struct LoraSpec {
    int64_t M = 17, K = 33;
    std::vector<int64_t> N = {31};
    std::vector<int64_t> R = {5}; // 0 = no adapter on this projection
    int32_t dtype = L4J_F32;
    int32_t mode = L4J_WEIGHT_BORROW;
    int32_t compute = L4J_COMPUTE_F32;
    int32_t layout = L4J_COMPUTE_F32; // what the weights are packed for
    int32_t bias = 0;                 // dtype of the biases, 0 = none; given to every other projection
    float p = 0;
    uint32_t flags = 0;
    bool dx = true, grads = true;
    bool segmented = false;   // all rows are one segment
    int64_t pad = 0;          // elements between rows of every tensor
    uint64_t weight_seed = 0; // of the base weights, so that they do not depend on M; 0: drawn like the rest
    Guarded::Side side = Guarded::kAfter;
    size_t misalign = 0; // bytes, with kBefore
    enum Strides { kRows, kTransposed, kBroadcast } input_strides = kRows;

    int64_t widest() const { return std::max(K, *std::max_element(N.begin(), N.end())); }
    bool adapters() const { return *std::max_element(R.begin(), R.end()) > 0; }
};

// Operands and arguments of one case on one tier. Values depend on the spec and the seed alone.
class LoraCase {
public:
    LoraCase(const LoraSpec &spec, int32_t isa, int threads, uint64_t seed = 1)
        : spec_(spec), context_(isa, threads), isa_(isa) {
        Random random(seed);
        size_t G = spec.N.size();
        x = input({spec.M, spec.K}, random);
        for (size_t g = 0; g < G; g++) {
            int64_t N = spec.N[g], R = spec.R[g];
            float scale = 1.0f / std::sqrt(static_cast<float>(spec.K));
            std::vector<float> weight_values = spec.weight_seed ? Random(spec.weight_seed + g).floats(N * spec.K, scale)
                                                                : random.floats(N * spec.K, scale);
            weights_.push_back(std::make_unique<TestWeight>(context_, N, spec.K, weight_values, spec.dtype, spec.mode,
                                                            spec.mode == L4J_WEIGHT_BORROW ? spec.pad : 0,
                                                            spec.layout));
            handles_.push_back(weights_.back()->get());
            biases_.push_back(bias(N, g, random));
            a.push_back(R ? input({R, spec.K}, random) : Operand());
            b.push_back(R ? input({N, R}, random) : Operand());
            dy.push_back(input({spec.M, N}, random));
            y.push_back(output({spec.M, N}));
            s.push_back(R ? output({spec.M, R}) : Operand());
            da.push_back(R && spec.grads ? old({R, spec.K}, L4J_LORA_ACCUMULATE_GRADS, random) : Operand());
            db.push_back(R && spec.grads ? old({N, R}, L4J_LORA_ACCUMULATE_GRADS, random) : Operand());
            scaling.push_back(0.5f + 0.25f * static_cast<float>(g));
            module_id.push_back(static_cast<int32_t>(40000 + 3 * g));
        }
        dx = old({spec.M, spec.K}, L4J_LORA_ACCUMULATE_DX, random);
        for (int64_t m = 0; m < spec.M; m++) token_index.push_back(static_cast<uint32_t>(1000 + 7 * m));
    }

    l4j_lora args() {
        l4j_lora args = {};
        args.struct_size = sizeof args;
        args.flags = spec_.flags;
        args.projection_count = static_cast<int32_t>(spec_.N.size());
        args.adapter_count = spec_.adapters() ? 1 : 0;
        args.compute = spec_.compute;
        args.dropout_p = spec_.p;
        args.x = x.get();
        args.weights = handles_.data();
        if (spec_.bias) args.biases = tensors(biases_, 0);
        if (spec_.adapters()) {
            args.a = tensors(a, 1);
            args.b = tensors(b, 2);
            args.s = tensors(s, 3);
            args.scaling = scaling.data();
        }
        if (spec_.grads && spec_.adapters()) {
            args.da = tensors(da, 4);
            args.db = tensors(db, 5);
        }
        if (spec_.p > 0) {
            args.dropout_seed = &seed;
            args.dropout_step = &step;
            args.token_index = token_index.data();
            args.module_id = module_id.data();
            args.adapter_id = &adapter_id;
        }
        args.y = tensors(y, 6);
        args.dy = tensors(dy, 7);
        if (spec_.dx) args.dx = dx.get();
        if (spec_.segmented) {
            segment_offsets_[1] = static_cast<int32_t>(spec_.M);
            args.segment_capacity = 1;
            args.segment_count = &segment_count_;
            args.segment_offsets = segment_offsets_;
            args.segment_adapters = &segment_adapter_;
        }
        return args;
    }

    void forward() {
        l4j_lora arguments = args();
        L4J_ASSERT_OK(L4J_RUN(lora_forward, context_.queue(), &arguments)(error));
    }
    void backward() {
        l4j_lora arguments = args();
        L4J_ASSERT_OK(L4J_RUN(lora_backward, context_.queue(), &arguments)(error));
    }

    // Every output of forward and backward.
    std::vector<std::pair<std::string, const Operand *>> outputs() const {
        std::vector<std::pair<std::string, const Operand *>> all;
        for (size_t g = 0; g < spec_.N.size(); g++) {
            std::string index = "[" + std::to_string(g) + "]";
            all.push_back({"y" + index, &y[g]});
            if (!spec_.R[g]) continue;
            all.push_back({"s" + index, &s[g]});
            if (spec_.grads) all.push_back({"da" + index, &da[g]});
            if (spec_.grads) all.push_back({"db" + index, &db[g]});
        }
        if (spec_.dx) all.push_back({"dx", &dx});
        return all;
    }

    const Context &context() const { return context_; }
    // Another weight of the same shape and device instead of projection g's.
    void use_weight(size_t g, const l4j_weight *weight) { handles_[g] = weight; }

    Operand x, dx;
    std::vector<Operand> a, b, dy, y, s, da, db;
    std::vector<float> scaling;
    uint64_t seed = 0x0123456789abcdefull;
    int64_t step = 5;
    std::vector<uint32_t> token_index;
    std::vector<int32_t> module_id;
    int32_t adapter_id = 1;

private:
    Operand input(std::vector<int64_t> shape, Random &random) {
        std::vector<float> values = random.floats(shape[0] * shape[1]);
        if (spec_.input_strides == LoraSpec::kTransposed) {
            Operand o(isa_, {shape[1], shape[0]}, spec_.pad, spec_.side, spec_.misalign);
            l4j_tensor &t = o.mutable_tensor();
            std::swap(t.shape[0], t.shape[1]);
            std::swap(t.stride[0], t.stride[1]);
            return o.fill(values);
        }
        if (spec_.input_strides == LoraSpec::kBroadcast) { // one row for all
            Operand o(isa_, {1, shape[1]}, 0, spec_.side, spec_.misalign);
            o.fill(values);
            l4j_tensor &t = o.mutable_tensor();
            t.shape[0] = shape[0];
            t.stride[0] = 0;
            return o;
        }
        return output(shape).fill(values);
    }
    Operand output(std::vector<int64_t> shape) { return Operand(isa_, shape, spec_.pad, spec_.side, spec_.misalign); }
    // Poisoned, or with old values to add to.
    Operand old(std::vector<int64_t> shape, uint32_t flag, Random &random) {
        std::vector<float> values = random.floats(shape[0] * shape[1]);
        Operand o = output(shape);
        if (spec_.flags & flag) o.fill(values);
        return o;
    }
    l4j_tensor bias(int64_t N, size_t g, Random &random) {
        std::vector<float> values = random.floats(N);
        if (!spec_.bias || g % 2) return l4j_tensor{};
        auto memory = std::make_shared<Guarded>(static_cast<size_t>(N * dtype_bytes(spec_.bias)));
        for (int64_t n = 0; n < N; n++) {
            if (spec_.bias == L4J_F32) memory->as<float>()[n] = values[static_cast<size_t>(n)];
            if (spec_.bias == L4J_BF16) memory->as<uint16_t>()[n] = to_bf16(values[static_cast<size_t>(n)]);
            if (spec_.bias == L4J_F16) memory->as<uint16_t>()[n] = to_f16(values[static_cast<size_t>(n)]);
        }
        bias_memory_.push_back(memory);
        return tensor(memory->as(), spec_.bias, {N});
    }
    const l4j_tensor *tensors(const std::vector<Operand> &operands, size_t slot) {
        descriptors_[slot].clear();
        for (const Operand &o : operands) descriptors_[slot].push_back(*o.get());
        return descriptors_[slot].data();
    }
    const l4j_tensor *tensors(const std::vector<l4j_tensor> &list, size_t slot) {
        descriptors_[slot] = list;
        return descriptors_[slot].data();
    }

    LoraSpec spec_;
    Context context_;
    int32_t isa_;
    std::vector<std::unique_ptr<TestWeight>> weights_;
    std::vector<const l4j_weight *> handles_;
    std::vector<l4j_tensor> biases_;
    std::vector<std::shared_ptr<Guarded>> bias_memory_;
    std::vector<l4j_tensor> descriptors_[8];
    int32_t segment_count_ = 1, segment_offsets_[2] = {0, 0}, segment_adapter_ = 0;
};

inline std::string describe(const LoraSpec &spec, int32_t isa, int threads) {
    std::string text = std::string(tier_name(isa)) + " threads " + std::to_string(threads) + " M " +
                       std::to_string(spec.M) + " K " + std::to_string(spec.K);
    for (size_t g = 0; g < spec.N.size(); g++) {
        text += " N " + std::to_string(spec.N[g]) + " R " + std::to_string(spec.R[g]);
    }
    return text + " dtype " + std::to_string(spec.dtype) + " mode " + std::to_string(spec.mode) + " compute " +
           std::to_string(spec.compute) + " layout " + std::to_string(spec.layout) + " p " + std::to_string(spec.p) +
           " flags " + std::to_string(spec.flags);
}

// Forward and backward have the same bits in every run.
inline void check_runs(LoraCase &c, int runs) {
    std::vector<std::vector<float>> first;
    for (int run = 0; run < runs; run++) {
        c.forward();
        c.backward();
        auto outputs = c.outputs();
        for (size_t i = 0; i < outputs.size(); i++) {
            if (run == 0) first.push_back(outputs[i].second->floats());
            ASSERT_TRUE(same_bits(first[i], outputs[i].second->floats())) << outputs[i].first << " run " << run;
        }
    }
}

// What computes in bf16 on the CPU is refused by name on a GPU: the weight in tiles, and the operation.
inline void check_refused_on_gpu(const LoraSpec &spec) {
    if (!has_gpu()) return;
    l4j_error error = {};
    if (spec.layout == L4J_COMPUTE_BF16) {
        Context context(L4J_ISA_CUDA, 0);
        std::vector<float> values(static_cast<size_t>(spec.N[0] * spec.K));
        l4j_tensor t = tensor(values.data(), L4J_F32, {spec.N[0], spec.K});
        int32_t role = L4J_ROLE_VALUES;
        l4j_weight_options options = {};
        options.struct_size = sizeof options;
        options.scheme = L4J_SCHEME_DENSE;
        options.mode = L4J_WEIGHT_PACK;
        options.compute = L4J_COMPUTE_BF16;
        options.rows = spec.N[0];
        options.cols = spec.K;
        options.part_count = 1;
        options.part_roles = &role;
        options.part_values = &t;
        l4j_weight *weight = nullptr;
        EXPECT_EQ(L4J_ENOTSUP, l4j_weight_create(context.device(), context.queue(), &options, &weight, &error));
        EXPECT_STREQ("weight_create: compute is L4J_COMPUTE_BF16; expected L4J_COMPUTE_F32 on a GPU", error.message);
        EXPECT_EQ(nullptr, weight);
    }
    if (spec.compute == L4J_COMPUTE_BF16) {
        LoraSpec other = spec;
        other.layout = L4J_COMPUTE_F32;
        LoraCase c(other, L4J_ISA_CUDA, 0);
        l4j_lora args = c.args();
        EXPECT_EQ(L4J_ENOTSUP, L4J_RUN(lora_forward, c.context().queue(), &args)(&error));
        EXPECT_STREQ("lora_forward: compute is L4J_COMPUTE_BF16; expected L4J_COMPUTE_F32 on a GPU", error.message);
        EXPECT_EQ(L4J_ENOTSUP, L4J_RUN(lora_backward, c.context().queue(), &args)(&error));
        EXPECT_STREQ("lora_backward: compute is L4J_COMPUTE_BF16; expected L4J_COMPUTE_F32 on a GPU", error.message);
    }
}

// Runs forward and backward on every tier: close to ref64, and the same bits on all of them, whatever the number of threads.
inline void check_lora(const LoraSpec &spec, const std::vector<int> &thread_counts = {1, 2, 5}) {
    LoraCase oracle(spec, L4J_ISA_REF64, 2), ref(spec, L4J_ISA_REF, 3);
    for (LoraCase *c : {&oracle, &ref}) {
        c->forward();
        c->backward();
    }
    double tolerance = 1e-5 * std::max(1.0, std::sqrt(static_cast<double>(std::max(spec.widest(), spec.M)) / 1024));
    bool bf16 = spec.compute == L4J_COMPUTE_BF16;
    // A value of s or ds that rounds the other way in fp64 is off by 2^-8; few do.
    if (bf16 && spec.adapters()) tolerance = 2e-4;
    auto expected = oracle.outputs(), bits = ref.outputs();
    for (size_t i = 0; i < expected.size(); i++) {
        ASSERT_LE(relative_error(bits[i].second->values(), expected[i].second->values()), tolerance)
            << bits[i].first << " " << describe(spec, L4J_ISA_REF, 3);
    }
    for (int32_t isa : bf16 ? bf16_tiers() : tiers()) {
        for (int threads : thread_counts) {
            if (isa == L4J_ISA_REF && threads != 1) continue;
            LoraCase c(spec, isa, threads);
            c.forward();
            c.backward();
            auto got = c.outputs();
            for (size_t i = 0; i < got.size(); i++) {
                ASSERT_TRUE(same_bits(bits[i].second->floats(), got[i].second->floats()))
                    << got[i].first << " " << describe(spec, isa, threads);
            }
        }
    }
    if (bf16 || spec.layout == L4J_COMPUTE_BF16) return check_refused_on_gpu(spec);
    on_gpu(tolerance, [&](double allowed) {
        LoraCase exact(spec, L4J_ISA_REF64, 1), c(spec, L4J_ISA_CUDA, 0);
        for (LoraCase *each : {&exact, &c}) {
            each->forward();
            each->backward();
        }
        auto wanted = exact.outputs(), got = c.outputs();
        for (size_t i = 0; i < got.size(); i++) {
            ASSERT_LE(relative_error(got[i].second->values(), wanted[i].second->values()), allowed)
                << got[i].first << " " << describe(spec, L4J_ISA_CUDA, 0);
        }
    });
}

} // namespace l4j
