// Random shapes, strides, layouts, threads and values: every tier gives the bits of ref, inside its own memory.
// L4J_FUZZ_CASES sets the number of cases of each operation, L4J_FUZZ_SEED the first seed.
#include "lora_case.h"
#include "tier_check.h"

#include <cstdlib>

namespace l4j {
namespace {

int64_t setting(const char *name, int64_t otherwise) {
    const char *text = getenv(name);
    return text ? atoll(text) : otherwise;
}

// One case: draws shapes and values from its seed, the same on every tier; layout and threads from another stream.
class Fuzz {
public:
    Fuzz(int32_t isa, uint64_t seed, uint64_t layout)
        : isa(isa), random(seed), layout_(layout), context(isa, static_cast<int>(1 + layout_.below(5))) {}

    // A size that likes edges: around lanes, tiles and blocks.
    int64_t size(int64_t most, int64_t least = 1) {
        static const int64_t kEdges[] = {1,  2,  3,  5,  6,  7,  8,  12,  15,  16,  17, 31,
                                         32, 33, 48, 63, 64, 65, 95, 128, 320, 384, 385};
        int64_t n = random.below(2) ? kEdges[random.below(sizeof kEdges / sizeof *kEdges)] : random.below(most + 1);
        return std::max(least, std::min(n, most));
    }
    float scale() { return specials_ ? 1.0f : static_cast<float>(1 << random.below(4)); }
    void allow_specials() { specials_ = random.below(8) == 0; }
    bool specials() const { return specials_; }

    std::vector<float> values(int64_t n) {
        std::vector<float> v = random.floats(n, scale());
        if (!specials_) return v;
        static const float kSpecial[] = {NAN, INFINITY, -INFINITY, -0.0f, 1e-40f, 3e38f, 0.0f};
        for (int64_t i = 1 + n / 64; n > 0 && i > 0; i--) {
            v[static_cast<size_t>(random.below(n))] = kSpecial[random.below(7)];
        }
        return v;
    }

    // An operand that is read: any strides but overlapping ones, whose values would depend on the layout.
    Operand input(const std::vector<int64_t> &shape) { return placed(shape, true).fill(values(count(shape))); }
    // An operand that is written: innermost stride 1.
    Operand output(const std::vector<int64_t> &shape) { return placed(shape, false); }
    Operand updated(const std::vector<int64_t> &shape) { return placed(shape, false).fill(values(count(shape))); }

    // A weight, and the same stored values in any layout.
    std::unique_ptr<TestWeight> weight(int64_t rows, int64_t cols) {
        static const int32_t kTypes[] = {L4J_F32, L4J_F16, L4J_BF16};
        int32_t dtype = kTypes[random.below(3)];
        std::vector<float> v = random.floats(rows * cols);
        bool pack = layout_.below(2);
        int64_t pad = pack ? 0 : layout_.below(3);
        return std::make_unique<TestWeight>(context, rows, cols, v, dtype, pack ? L4J_WEIGHT_PACK : L4J_WEIGHT_BORROW,
                                            pad);
    }

    int32_t isa;
    Random random;

private:
    Random layout_;
    bool specials_ = false;

    static int64_t count(const std::vector<int64_t> &shape) {
        int64_t n = 1;
        for (int64_t s : shape) n *= s;
        return n;
    }

    Operand placed(std::vector<int64_t> shape, bool any) {
        size_t n = shape.size();
        std::vector<size_t> order(n); // order[i]: logical dimension at physical place i
        for (size_t i = 0; i < n; i++) order[i] = i;
        size_t movable = any ? n : n - 1;
        for (size_t i = 0; i + 1 < movable; i++) {
            if (layout_.below(4) == 0) std::swap(order[i], order[i + 1]);
        }
        int64_t step = any && layout_.below(4) == 0 ? 2 : 1;
        std::vector<int64_t> physical;
        for (size_t i : order) physical.push_back(shape[i]);
        physical.push_back(step);
        int64_t pad = n > 1 && layout_.below(2) ? layout_.below(20) : 0;
        auto side = layout_.below(2) ? Guarded::kAfter : Guarded::kBefore;
        size_t misalign =
            side == Guarded::kBefore ? static_cast<size_t>(layout_.below(16)) * (isa == L4J_ISA_REF64 ? 8 : 4) : 0;
        if (physical.size() > 4) physical.pop_back(), step = 1;
        Operand o(isa, physical, n > 1 ? pad : 0, side, misalign);
        l4j_tensor &t = o.mutable_tensor(), p = t;
        t.ndim = static_cast<int32_t>(n);
        for (size_t i = 0; i < n; i++) {
            t.shape[order[i]] = p.shape[i];
            t.stride[order[i]] = p.stride[i];
        }
        for (size_t i = n; i < 4; i++) t.shape[i] = t.stride[i] = 0;
        if (any && t.shape[0] > 0 && layout_.below(6) == 0) { // backwards
            t.data = static_cast<char *>(t.data) + (t.shape[0] - 1) * t.stride[0] * (isa == L4J_ISA_REF64 ? 8 : 4);
            t.stride[0] = -t.stride[0];
        }
        return o;
    }

public:
    Context context; // after what its constructor reads
};

using Case = std::function<Outputs(Fuzz &)>;

::testing::AssertionResult same_values(const Operand &a, const Operand &b) {
    for (int64_t i = 0; i < a.size(); i++) {
        float x = static_cast<float>(a.at(i)), y = static_cast<float>(b.at(i));
        if (memcmp(&x, &y, sizeof x) != 0 && !(std::isnan(x) && std::isnan(y))) {
            return ::testing::AssertionFailure() << "element " << i << ": " << x << " against " << y;
        }
    }
    return ::testing::AssertionSuccess();
}

void fuzz(int64_t cases, const Case &run) {
    cases = setting("L4J_FUZZ_CASES", cases);
    uint64_t first = static_cast<uint64_t>(setting("L4J_FUZZ_SEED", 1));
    for (uint64_t seed = first; seed < first + static_cast<uint64_t>(cases); seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Fuzz reference(L4J_ISA_REF, seed, seed);
        Outputs expected = run(reference);
        for (int32_t isa : tiers()) {
            Fuzz other(isa, seed, seed * 1000003 + static_cast<uint64_t>(isa));
            Outputs got = run(other);
            for (size_t i = 0; i < expected.size(); i++) {
                ASSERT_TRUE(same_values(expected[i].second, got[i].second))
                    << expected[i].first << " on " << tier_name(isa);
            }
        }
    }
}

template <typename Args> Args sized() {
    Args args = {};
    args.struct_size = sizeof args;
    return args;
}

TEST(FuzzTest, Lora) {
    int64_t cases = setting("L4J_FUZZ_CASES", 60);
    uint64_t first = static_cast<uint64_t>(setting("L4J_FUZZ_SEED", 1));
    for (uint64_t seed = first; seed < first + static_cast<uint64_t>(cases); seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Random r(seed);
        static const int64_t kSizes[] = {0,  1,  2,  7,   12,  13,  16,  17,  24,  25,  31, 32,
                                         33, 64, 65, 100, 145, 257, 290, 321, 385, 500, 777};
        auto pick = [&](int64_t from, int64_t most) {
            int64_t n = kSizes[from + r.below(23 - from)];
            return std::min(n, most);
        };
        LoraSpec spec;
        bool many = r.below(6) == 0;
        spec.M = pick(0, many ? 777 : 145);
        spec.K = pick(1, 777);
        spec.N.clear();
        spec.R.clear();
        for (int64_t g = 1 + r.below(3); g > 0; g--) {
            static const int64_t kRanks[] = {0, 1, 2, 4, 7, 8, 9, 16, 17, 24, 33, 64, 65, 128, 257};
            spec.N.push_back(pick(1, many ? 100 : 500));
            spec.R.push_back(kRanks[r.below(r.below(4) ? 9 : 15)]);
        }
        static const int32_t kTypes[] = {L4J_F32, L4J_F16, L4J_BF16};
        spec.dtype = kTypes[r.below(3)];
        spec.bias = r.below(2) ? kTypes[r.below(3)] : 0;
        static const float kDropout[] = {0, 0, 0.1f, 0.5f, 0.99f, 1.0f / 65536};
        spec.p = kDropout[r.below(6)];
        if (!spec.adapters()) spec.p = 0;
        spec.flags = static_cast<uint32_t>(r.below(4));
        spec.dx = r.below(4) != 0;
        spec.grads = r.below(4) != 0;
        spec.pad = r.below(3);
        spec.side = r.below(2) ? Guarded::kAfter : Guarded::kBefore;
        spec.misalign = spec.side == Guarded::kBefore ? static_cast<size_t>(r.below(16)) * 4 : 0;
        int64_t strides = r.below(4);
        spec.input_strides = strides == 0 && spec.M   ? LoraSpec::kTransposed
                             : strides == 1 && spec.M ? LoraSpec::kBroadcast
                                                      : LoraSpec::kRows;
        LoraCase ref(spec, L4J_ISA_REF, 2, seed);
        ref.forward();
        ref.backward();
        auto expected = ref.outputs();
        for (int32_t isa : tiers()) {
            LoraSpec other = spec;
            other.mode = r.below(2) ? L4J_WEIGHT_PACK : L4J_WEIGHT_BORROW;
            LoraCase c(other, isa, static_cast<int>(1 + r.below(6)), seed);
            c.forward();
            c.backward();
            auto got = c.outputs();
            for (size_t i = 0; i < got.size(); i++) {
                ASSERT_TRUE(same_values(*expected[i].second, *got[i].second))
                    << got[i].first << " " << describe(other, isa, 0);
            }
        }
    }
}

TEST(FuzzTest, Attention) {
    fuzz(60, [](Fuzz &f) {
        f.allow_specials();
        int64_t B = f.random.below(5), D = f.size(f.random.below(8) ? 80 : 256), Hkv = 1 + f.random.below(3),
                Hq = Hkv * (1 + f.random.below(4));
        bool causal = f.random.below(3) != 0;
        std::vector<int32_t> offsets = {static_cast<int32_t>(f.random.below(3))}, starts, lengths;
        int64_t longest_q = 0, longest_k = 0, rows = f.random.below(3);
        for (int64_t b = 0; b < B; b++) {
            int64_t q = f.random.below(4) ? f.size(90, 0) : f.random.below(2),
                    k = causal ? q + f.random.below(70) : f.size(150, q ? 1 : 0);
            offsets.push_back(offsets.back() + static_cast<int32_t>(q));
            starts.push_back(static_cast<int32_t>(rows));
            lengths.push_back(static_cast<int32_t>(k));
            rows += k + f.random.below(3);
            longest_q = std::max(longest_q, q);
            longest_k = std::max(longest_k, k);
        }
        int64_t Mq = offsets.back() + f.random.below(3);
        Operand q = f.input({Mq, Hq, D}), k = f.input({rows, Hkv, D}), v = f.input({rows, Hkv, D}),
                o = f.output({Mq, Hq, D});
        Operand lse = f.output({Mq, Hq}), d_o = f.input({Mq, Hq, D}), dq = f.output({Mq, Hq, D});
        Operand dk = f.output({rows, Hkv, D}), dv = f.output({rows, Hkv, D});
        l4j_attention args = sized<l4j_attention>();
        args.flags = causal ? L4J_ATTENTION_CAUSAL : 0;
        args.window = causal && f.random.below(2) ? static_cast<int32_t>(1 + f.size(120, 0)) : 0;
        args.scale = 1 / std::sqrt(static_cast<float>(D));
        args.sequences = static_cast<int32_t>(B);
        args.max_q_length = longest_q + f.random.below(2);
        args.max_kv_length = longest_k + f.random.below(40);
        args.q_offsets = offsets.data();
        args.kv_starts = starts.data();
        args.kv_lengths = lengths.data();
        args.q = q.get(), args.k = k.get(), args.v = v.get(), args.o = o.get(), args.lse = lse.get();
        args.d_o = d_o.get(), args.dq = dq.get(), args.dk = dk.get(), args.dv = dv.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(attention_forward, f.context.queue(), &args)(error)); }();
        [&] { L4J_ASSERT_OK(L4J_RUN(attention_backward, f.context.queue(), &args)(error)); }();
        return Outputs{{"o", o}, {"lse", lse}, {"dq", dq}, {"dk", dk}, {"dv", dv}};
    });
}

TEST(FuzzTest, LinearCrossEntropy) {
    fuzz(40, [](Fuzz &f) {
        f.allow_specials();
        int64_t M = f.random.below(10) ? f.size(70, 0) : 300, K = f.size(100),
                V = f.random.below(4) ? f.size(700) : f.random.below(3000) + 1;
        if (M == 300) V = std::min<int64_t>(V, 100);
        auto w = f.weight(V, K);
        Operand x = f.input({M, K}), loss = f.output({M}), lse = f.output({M}), dx = f.output({M, K});
        std::vector<int32_t> targets, predicted(static_cast<size_t>(M), 77);
        std::vector<float> weights = f.random.floats(M);
        int64_t ignored = f.random.below(4);
        for (int64_t m = 0; m < M; m++)
            targets.push_back(f.random.below(4) < ignored ? -100 : static_cast<int32_t>(f.random.below(V)));
        float scale = f.random.uniform();
        l4j_numeric_status numeric = {};
        l4j_linear_cross_entropy args = sized<l4j_linear_cross_entropy>();
        args.ignore_index = -100;
        args.x = x.get(), args.weight = w->get(), args.targets = targets.data();
        args.row_weight = f.random.below(2) ? weights.data() : nullptr;
        args.grad_scale = f.random.below(2) ? &scale : nullptr;
        args.loss = loss.get(), args.lse = lse.get(), args.predicted = predicted.data(), args.numeric = &numeric;
        if (f.random.below(4)) args.dx = dx.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(linear_cross_entropy_forward, f.context.queue(), &args)(error)); }();
        Operand seen(f.isa, {M + 1});
        for (int64_t m = 0; m < M; m++) seen.set(m, predicted[static_cast<size_t>(m)]);
        seen.set(M, numeric.operation * 1000 + numeric.tensor);
        return Outputs{{"loss", loss}, {"lse", lse}, {"dx", dx}, {"predicted and numeric", seen}};
    });
}

TEST(FuzzTest, RmsNorm) {
    fuzz(60, [](Fuzz &f) {
        f.allow_specials();
        int64_t M = f.size(40, 0), N = f.size(1100);
        bool residual = f.random.below(2), frozen = f.random.below(2);
        Operand x = f.input({M, N}), r = f.input({M, N}), w = f.input({N}), h = f.output({M, N}), y = f.output({M, N}),
                rstd = f.output({M});
        Operand dy = f.input({M, N}), dr = f.input({M, N}), dx = f.output({M, N}), dw = f.updated({N});
        l4j_rms_norm args = sized<l4j_rms_norm>();
        args.eps = 1e-5f;
        args.x = x.get(), args.weight = w.get(), args.h = h.get(), args.y = y.get(), args.rstd = rstd.get(),
        args.dy = dy.get(), args.dx = dx.get();
        if (residual) args.residual = r.get(), args.dresidual = dr.get();
        if (!frozen) args.dweight = dw.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(rms_norm_forward, f.context.queue(), &args)(error)); }();
        [&] { L4J_ASSERT_OK(L4J_RUN(rms_norm_backward, f.context.queue(), &args)(error)); }();
        return Outputs{{"h", h}, {"y", y}, {"rstd", rstd}, {"dx", dx}, {"dw", dw}};
    });
}

TEST(FuzzTest, Rope) {
    fuzz(60, [](Fuzz &f) {
        f.allow_specials();
        int64_t M = f.size(30, 0), H = f.random.below(5), D = f.size(150), half = f.random.below(D / 2 + 1),
                P = 1 + f.random.below(50);
        Operand src = f.input({M, H, D}), dst = f.output({M, H, D}), back = f.output({M, H, D}),
                cosine = f.input({P, half}), sine = f.input({P, half});
        std::vector<int32_t> positions;
        for (int64_t m = 0; m < M; m++) positions.push_back(static_cast<int32_t>(f.random.below(P)));
        l4j_rope args = sized<l4j_rope>();
        args.flags = f.random.below(2) ? L4J_ROPE_INTERLEAVED : 0;
        args.src = src.get(), args.dst = dst.get(), args.cosine = cosine.get(), args.sine = sine.get(),
        args.positions = positions.data();
        [&] { L4J_ASSERT_OK(L4J_RUN(rope_forward, f.context.queue(), &args)(error)); }();
        args.src = dst.get(), args.dst = back.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(rope_backward, f.context.queue(), &args)(error)); }();
        return Outputs{{"dst", dst}, {"back", back}};
    });
}

TEST(FuzzTest, Swiglu) {
    fuzz(60, [](Fuzz &f) {
        f.allow_specials();
        int64_t M = f.size(40, 0), N = f.size(1100, 0);
        Operand gate = f.input({M, N}), up = f.input({M, N}), out = f.output({M, N}), dout = f.input({M, N}),
                dgate = f.output({M, N}), dup = f.output({M, N});
        l4j_swiglu args = sized<l4j_swiglu>();
        args.gate = gate.get(), args.up = up.get(), args.out = out.get(), args.dout = dout.get(),
        args.dgate = dgate.get(), args.dup = dup.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(swiglu_forward, f.context.queue(), &args)(error)); }();
        [&] { L4J_ASSERT_OK(L4J_RUN(swiglu_backward, f.context.queue(), &args)(error)); }();
        return Outputs{{"out", out}, {"dgate", dgate}, {"dup", dup}};
    });
}

TEST(FuzzTest, EmbeddingAndDequantize) {
    fuzz(60, [](Fuzz &f) {
        int64_t M = f.size(60, 0), V = f.size(80), N = f.size(300);
        auto w = f.weight(V, N);
        Operand out = f.output({M, N}), dout = f.input({M, N}), dweight = f.updated({V, N});
        std::vector<int32_t> ids;
        for (int64_t m = 0; m < M; m++) ids.push_back(static_cast<int32_t>(f.random.below(V)));
        l4j_embedding args = sized<l4j_embedding>();
        args.weight = w->get(), args.ids = ids.data(), args.out = out.get(), args.dout = dout.get(),
        args.dweight = dweight.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(embedding_forward, f.context.queue(), &args)(error)); }();
        [&] { L4J_ASSERT_OK(L4J_RUN(embedding_backward, f.context.queue(), &args)(error)); }();
        l4j_dequantize part = sized<l4j_dequantize>();
        int64_t begin = f.random.below(V + 1), count = f.random.below(V - begin + 1);
        Operand rows = f.output({count, N});
        part.weight = w->get(), part.row_begin = begin, part.out = rows.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(dequantize_forward, f.context.queue(), &part)(error)); }();
        return Outputs{{"out", out}, {"dweight", dweight}, {"rows", rows}};
    });
}

TEST(FuzzTest, Axpby) {
    fuzz(60, [](Fuzz &f) {
        f.allow_specials();
        int64_t M = f.size(40, 0), N = f.size(1100, 0);
        Operand x = f.input({M, N}), y = f.updated({M, N});
        float alpha = f.random.uniform(), beta = f.random.below(3) ? f.random.uniform() : 0;
        l4j_axpby args = sized<l4j_axpby>();
        args.alpha = &alpha, args.beta = &beta, args.x = x.get(), args.y = y.get();
        [&] { L4J_ASSERT_OK(L4J_RUN(axpby_forward, f.context.queue(), &args)(error)); }();
        return Outputs{{"y", y}};
    });
}

// One group is left alone when a gradient is not finite, and the others go on.
TEST(FuzzTest, Adamw) {
    fuzz(40, [](Fuzz &f) {
        f.allow_specials();
        int64_t G = 1 + f.random.below(3);
        std::vector<std::vector<l4j_tensor>> lists;
        std::vector<l4j_adamw_hyper> hypers(static_cast<size_t>(G));
        std::vector<double> norms(static_cast<size_t>(G));
        std::vector<l4j_adamw_group> groups(static_cast<size_t>(G));
        std::vector<Operand> all;
        auto flat = [&](int64_t n, bool positive) {
            std::vector<float> v = f.values(n);
            for (float &x : v) x = positive ? std::fabs(x) : x;
            all.push_back(Operand(f.isa, {n}).fill(v));
            return *all.back().get();
        };
        for (size_t g = 0; g < groups.size(); g++) {
            std::vector<l4j_tensor> p, d, m, v;
            for (int64_t t = f.random.below(4); t > 0; t--) {
                int64_t n = f.random.below(3) ? f.size(700, 0) : f.random.below(9000);
                p.push_back(flat(n, false)), d.push_back(flat(n, false)), m.push_back(flat(n, false));
                v.push_back(flat(n, true));
            }
            int64_t count = static_cast<int64_t>(p.size());
            lists.insert(lists.end(), {p, d, m, v});
            double clip = f.random.below(2) ? 0.5 : 0;
            hypers[g] = {1e-3 * static_cast<double>(f.random.below(5)),
                         0.9,
                         0.999,
                         1e-8,
                         0.01,
                         clip,
                         0.25,
                         1 + f.random.below(2000)};
            groups[g] = {count, nullptr, nullptr, nullptr, nullptr, &hypers[g], &norms[g], nullptr, nullptr};
        }
        for (size_t g = 0; g < groups.size(); g++) {
            groups[g].params = lists[4 * g].data(), groups[g].grads = lists[4 * g + 1].data();
            groups[g].exp_avgs = lists[4 * g + 2].data(), groups[g].exp_avg_sqs = lists[4 * g + 3].data();
        }
        l4j_numeric_status numeric = {};
        l4j_adamw args = sized<l4j_adamw>();
        args.flags = f.random.below(2) ? L4J_ADAMW_ZERO_GRADS : 0;
        args.group_count = G, args.groups = groups.data(), args.numeric = &numeric;
        [&] { L4J_ASSERT_OK(L4J_RUN(adamw_step, f.context.queue(), &args)(error)); }();
        Operand seen(f.isa, {G + 1});
        for (int64_t g = 0; g < G; g++) seen.set(g, norms[static_cast<size_t>(g)]);
        seen.set(G, numeric.operation * 100 + numeric.group * 10 + numeric.tensor);
        Outputs outputs = {{"norms and numeric", seen}};
        for (const Operand &o : all) outputs.push_back({"tensor", o});
        return outputs;
    });
}

} // namespace
} // namespace l4j
