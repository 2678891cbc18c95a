// The bits of every operation, written down: what no comparison within one machine can show, that machines agree. A number here
// changes only with native/NUMERICS.md.
#include "lora_case.h"

namespace {

using l4j::Context;
using l4j::Operand;
using l4j::Random;
using l4j::TestWeight;

// FNV-1a, 64 bits.
class Hash {
public:
    Hash &add(const void *data, size_t bytes) {
        for (size_t i = 0; i < bytes; i++) {
            value_ = (value_ ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001b3ull;
        }
        return *this;
    }
    Hash &add(const Operand &x) {
        for (float f : x.floats()) add(&f, sizeof f);
        return *this;
    }
    uint64_t value() const { return value_; }

private:
    uint64_t value_ = 0xcbf29ce484222325ull;
};

Operand operand(std::vector<int64_t> shape, Random &random, float scale = 1) {
    Operand x(L4J_ISA_REF, shape);
    return x.fill(random.floats(x.size(), scale));
}

// The same hash on every tier that the machine has.
template <typename Compute> void expect_everywhere(uint64_t expected, Compute compute) {
    for (int32_t isa : l4j::tiers()) {
        Hash hash;
        compute(isa, hash);
        EXPECT_EQ(expected, hash.value()) << l4j::tier_name(isa) << std::hex << " 0x" << hash.value();
    }
}

TEST(KnownAnswerTest, Lora) {
    struct Known {
        int32_t dtype;
        float p;
        uint64_t hash;
    };
    for (Known known : {Known{L4J_F32, 0, 0x357b40113fb04e6d}, Known{L4J_F32, 0.3f, 0xa56b3596ee13c18d},
                        Known{L4J_BF16, 0.3f, 0x7b63d4817992a1a6}, Known{L4J_F16, 0, 0x7e17bb27728c6921}}) {
        expect_everywhere(known.hash, [&](int32_t isa, Hash &hash) {
            l4j::LoraSpec spec;
            spec.M = 37, spec.K = 150, spec.N = {70, 33, 16}, spec.R = {8, 0, 5};
            spec.dtype = known.dtype, spec.bias = known.dtype, spec.p = known.p;
            spec.flags = L4J_LORA_ACCUMULATE_GRADS;
            l4j::LoraCase lora(spec, isa, 1);
            lora.forward();
            lora.backward();
            for (auto &[name, output] : lora.outputs()) hash.add(*output);
        });
    }
}

TEST(KnownAnswerTest, Attention) {
    expect_everywhere(0x011aeaae772fee86, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(11);
        const int64_t M = 45, Hq = 6, Hkv = 2, D = 24;
        std::vector<int32_t> offsets = {0, 1, 34, 45}, starts = {0, 1, 34}, lengths = {1, 33, 11};
        Operand q = operand({M, Hq, D}, random, 2), k = operand({M, Hkv, D}, random, 2),
                v = operand({M, Hkv, D}, random);
        Operand d_o = operand({M, Hq, D}, random), o(isa, {M, Hq, D}), lse(isa, {M, Hq}), dq(isa, {M, Hq, D});
        Operand dk(isa, {M, Hkv, D}), dv(isa, {M, Hkv, D});
        l4j_attention args = {};
        args.struct_size = sizeof args;
        args.flags = L4J_ATTENTION_CAUSAL;
        args.scale = 0.204124145f;
        args.sequences = 3;
        args.max_q_length = args.max_kv_length = 33;
        args.q_offsets = offsets.data(), args.kv_starts = starts.data(), args.kv_lengths = lengths.data();
        args.q = q.get(), args.k = k.get(), args.v = v.get(), args.o = o.get(), args.lse = lse.get();
        args.d_o = d_o.get(), args.dq = dq.get(), args.dk = dk.get(), args.dv = dv.get();
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &args)(error));
        L4J_ASSERT_OK(L4J_RUN(attention_backward, context.queue(), &args)(error));
        hash.add(o).add(lse).add(dq).add(dk).add(dv);
    });
}

TEST(KnownAnswerTest, RmsNorm) {
    expect_everywhere(0x0b0541b700e7a012, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(12);
        const int64_t M = 7, N = 101;
        Operand x = operand({M, N}, random, 3), residual = operand({M, N}, random), weight = operand({N}, random);
        Operand dy = operand({M, N}, random), dresidual = operand({M, N}, random), dweight = operand({N}, random);
        Operand h(isa, {M, N}), y(isa, {M, N}), rstd(isa, {M}), dx(isa, {M, N});
        l4j_rms_norm args = {};
        args.struct_size = sizeof args;
        args.eps = 1e-5f;
        args.x = x.get(), args.residual = residual.get(), args.weight = weight.get(), args.h = h.get();
        args.y = y.get(), args.rstd = rstd.get(), args.dy = dy.get(), args.dresidual = dresidual.get();
        args.dx = dx.get(), args.dweight = dweight.get();
        L4J_ASSERT_OK(L4J_RUN(rms_norm_forward, context.queue(), &args)(error));
        L4J_ASSERT_OK(L4J_RUN(rms_norm_backward, context.queue(), &args)(error));
        hash.add(h).add(y).add(rstd).add(dx).add(dweight);
    });
}

TEST(KnownAnswerTest, Rope) {
    expect_everywhere(0x9ff7f8efa758ea71, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(13);
        const int64_t M = 9, H = 3, D = 38;
        Operand src = operand({M, H, D}, random), cosine = operand({12, 16}, random), sine = operand({12, 16}, random);
        Operand dst(isa, {M, H, D});
        std::vector<int32_t> positions = {0, 1, 2, 3, 0, 1, 11, 5, 7};
        l4j_rope args = {};
        args.struct_size = sizeof args;
        args.src = src.get(), args.dst = dst.get(), args.cosine = cosine.get(), args.sine = sine.get();
        args.positions = positions.data();
        L4J_ASSERT_OK(L4J_RUN(rope_forward, context.queue(), &args)(error));
        hash.add(dst);
        L4J_ASSERT_OK(L4J_RUN(rope_backward, context.queue(), &args)(error));
        hash.add(dst);
    });
}

TEST(KnownAnswerTest, Swiglu) {
    expect_everywhere(0xe97b5f841ac5e977, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(14);
        const int64_t M = 5, N = 203;
        Operand gate = operand({M, N}, random, 20), up = operand({M, N}, random), dout = operand({M, N}, random);
        Operand out(isa, {M, N}), dgate(isa, {M, N}), dup(isa, {M, N});
        l4j_swiglu args = {};
        args.struct_size = sizeof args;
        args.gate = gate.get(), args.up = up.get(), args.out = out.get();
        args.dout = dout.get(), args.dgate = dgate.get(), args.dup = dup.get();
        L4J_ASSERT_OK(L4J_RUN(swiglu_forward, context.queue(), &args)(error));
        L4J_ASSERT_OK(L4J_RUN(swiglu_backward, context.queue(), &args)(error));
        hash.add(out).add(dgate).add(dup);
    });
}

TEST(KnownAnswerTest, Embedding) {
    expect_everywhere(0x76c81df0cf4a8cf6, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(15);
        const int64_t M = 11, V = 6, N = 35;
        TestWeight weight(context, V, N, random.floats(V * N), L4J_BF16);
        Operand dout = operand({M, N}, random), dweight = operand({V, N}, random), out(isa, {M, N});
        std::vector<int32_t> ids = {5, 0, 1, 5, 5, 2, 3, 3, 1, 0, 5};
        l4j_embedding args = {};
        args.struct_size = sizeof args;
        args.weight = weight.get(), args.ids = ids.data();
        args.out = out.get(), args.dout = dout.get(), args.dweight = dweight.get();
        L4J_ASSERT_OK(L4J_RUN(embedding_forward, context.queue(), &args)(error));
        L4J_ASSERT_OK(L4J_RUN(embedding_backward, context.queue(), &args)(error));
        hash.add(out).add(dweight);
    });
}

TEST(KnownAnswerTest, LinearCrossEntropy) {
    expect_everywhere(0xb7384c771b1e4e7a, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(16);
        const int64_t M = 19, K = 70, V = 1500; // more than one block of the vocabulary
        TestWeight weight(context, V, K, random.floats(V * K), L4J_F16);
        Operand x = operand({M, K}, random), loss(isa, {M}), lse(isa, {M}), dx(isa, {M, K});
        std::vector<int32_t> targets, predicted(M);
        std::vector<float> row_weight;
        for (int64_t m = 0; m < M; m++) {
            targets.push_back(m % 5 == 3 ? -100 : static_cast<int32_t>(random.below(V)));
            row_weight.push_back(1 + random.uniform());
        }
        float grad_scale = 0.125f;
        l4j_linear_cross_entropy args = {};
        args.struct_size = sizeof args;
        args.ignore_index = -100;
        args.x = x.get(), args.weight = weight.get(), args.targets = targets.data(),
        args.row_weight = row_weight.data();
        args.grad_scale = &grad_scale, args.loss = loss.get(), args.lse = lse.get(), args.predicted = predicted.data();
        args.dx = dx.get();
        L4J_ASSERT_OK(L4J_RUN(linear_cross_entropy_forward, context.queue(), &args)(error));
        hash.add(loss).add(lse).add(dx).add(predicted.data(), predicted.size() * sizeof(int32_t));
    });
}

TEST(KnownAnswerTest, Adamw) {
    expect_everywhere(0x5b18da8b5664ba6a, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(17);
        const int64_t N = 5003; // more than one block of the norm
        Operand param = operand({N}, random), exp_avg = Operand(isa, {N}).fill(0.0),
                exp_avg_sq = Operand(isa, {N}).fill(0.0);
        l4j_adamw_hyper hyper = {2e-3, 0.9, 0.999, 1e-8, 0.01, 1, 0.5, 0};
        for (int step = 1; step <= 3; step++) {
            Operand grad = operand({N}, random);
            hyper.step = step;
            double norm = 0;
            l4j_adamw_group group = {1,      param.get(), grad.get(), exp_avg.get(), exp_avg_sq.get(),
                                     &hyper, &norm,       nullptr,    nullptr};
            l4j_adamw args = {};
            args.struct_size = sizeof args;
            args.group_count = 1;
            args.groups = &group;
            L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &args)(error));
            hash.add(&norm, sizeof norm);
        }
        hash.add(param).add(exp_avg).add(exp_avg_sq);
    });
}

TEST(KnownAnswerTest, AxpbyAndSample) {
    expect_everywhere(0x6ffc08d7e68395ea, [](int32_t isa, Hash &hash) {
        Context context(isa);
        Random random(18);
        Operand x = operand({3, 57}, random, 4), y = operand({3, 57}, random, 4);
        float alpha = 0.3f, beta = -1.7f;
        l4j_axpby args = {};
        args.struct_size = sizeof args;
        args.alpha = &alpha, args.beta = &beta, args.x = x.get(), args.y = y.get();
        L4J_ASSERT_OK(L4J_RUN(axpby_forward, context.queue(), &args)(error));
        hash.add(y);
        for (int64_t step = 0; step < 20; step++) {
            l4j_sample_hyper hyper = {0.8, 0.9, 20, 0, 42, step};
            int32_t ids[3];
            l4j_sample sample = {};
            sample.struct_size = sizeof sample;
            sample.logits = y.get(), sample.hyper = &hyper, sample.ids = ids;
            L4J_ASSERT_OK(L4J_RUN(sample_forward, context.queue(), &sample)(error));
            hash.add(ids, sizeof ids);
        }
    });
}

} // namespace
