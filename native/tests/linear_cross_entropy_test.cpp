#include "support.h"

namespace {

using l4j::Operand;

struct Spec {
    int64_t M = 9, K = 21, V = 50;
    int32_t dtype = L4J_F32;
    int32_t mode = L4J_WEIGHT_BORROW;
    int32_t compute = L4J_COMPUTE_F32, layout = L4J_COMPUTE_F32;
    bool dx = true, row_weight = true;
    int64_t pad = 0;
    int ignored = 3; // every third row; 0 = none, 1 = all
    bool transposed = false;
    float scale = 1; // of the weight
};

class Case {
public:
    Case(const Spec &spec, int32_t isa, int threads) : spec(spec), context(isa, threads), isa_(isa) {
        l4j::Random random(3);
        std::vector<float> values = random.floats(spec.M * spec.K);
        x = spec.transposed ? Operand(isa, {spec.K, spec.M}, spec.pad) : Operand(isa, {spec.M, spec.K}, spec.pad);
        if (spec.transposed) {
            std::swap(x.mutable_tensor().shape[0], x.mutable_tensor().shape[1]);
            std::swap(x.mutable_tensor().stride[0], x.mutable_tensor().stride[1]);
        }
        x.fill(values);
        weight = std::make_unique<l4j::TestWeight>(context, spec.V, spec.K, random.floats(spec.V * spec.K, spec.scale),
                                                   spec.dtype, spec.mode, 0, spec.layout);
        for (int64_t m = 0; m < spec.M; m++) {
            bool ignore = spec.ignored && m % spec.ignored == 0;
            targets.push_back(ignore ? -100 : static_cast<int32_t>(random.below(spec.V)));
            row_weight.push_back(1.0f + random.uniform());
            predicted.push_back(12345);
        }
        loss = Operand(isa, {spec.M});
        lse = Operand(isa, {spec.M});
        dx = Operand(isa, {spec.M, spec.K}, spec.pad);
    }
    l4j_linear_cross_entropy args() {
        l4j_linear_cross_entropy a = {};
        a.struct_size = sizeof a;
        a.ignore_index = -100;
        a.compute = spec.compute;
        a.x = x.get();
        a.weight = weight->get();
        a.targets = targets.data();
        a.row_weight = spec.row_weight ? row_weight.data() : nullptr;
        a.grad_scale = spec.row_weight ? &grad_scale : nullptr;
        a.step = &step;
        a.loss = loss.get();
        a.lse = lse.get();
        a.predicted = predicted.data();
        a.dx = spec.dx ? dx.get() : nullptr;
        a.numeric = &numeric;
        return a;
    }
    void run() {
        l4j_linear_cross_entropy a = args();
        L4J_ASSERT_OK(L4J_RUN(linear_cross_entropy_forward, context.queue(), &a)(error));
    }

    Spec spec;
    l4j::Context context;
    Operand x, loss, lse, dx;
    std::unique_ptr<l4j::TestWeight> weight;
    std::vector<int32_t> targets, predicted;
    std::vector<float> row_weight;
    float grad_scale = 0.25f;
    int64_t step = 41;
    l4j_numeric_status numeric = {};

private:
    int32_t isa_;
};

void check(const Spec &spec, const std::vector<int> &threads = {1, 2, 5}) {
    Case oracle(spec, L4J_ISA_REF64, 2), ref(spec, L4J_ISA_REF, 3);
    oracle.run();
    ref.run();
    double tolerance = 1e-5 * std::max(1.0, std::sqrt(static_cast<double>(std::max(spec.K, spec.V)) / 1024));
    bool bf16 = spec.compute == L4J_COMPUTE_BF16;
    if (bf16) tolerance = 2e-4; // a gradient of a logit that rounds the other way in fp64 is off by 2^-8; few do
    EXPECT_LE(l4j::relative_error(ref.loss.values(), oracle.loss.values()), tolerance);
    EXPECT_LE(l4j::relative_error(ref.lse.values(), oracle.lse.values()), tolerance);
    if (spec.dx) {
        EXPECT_LE(l4j::relative_error(ref.dx.values(), oracle.dx.values()), tolerance);
    }
    EXPECT_EQ(oracle.predicted, ref.predicted);
    EXPECT_EQ(0, ref.numeric.operation);
    for (int32_t isa : bf16 ? l4j::bf16_tiers() : l4j::tiers()) {
        for (int n : threads) {
            Case c(spec, isa, n);
            c.run();
            std::string where = std::string(l4j::tier_name(isa)) + " threads " + std::to_string(n) + " M " +
                                std::to_string(spec.M) + " K " + std::to_string(spec.K) + " V " +
                                std::to_string(spec.V);
            ASSERT_TRUE(l4j::same_bits(ref.loss.floats(), c.loss.floats())) << where;
            ASSERT_TRUE(l4j::same_bits(ref.lse.floats(), c.lse.floats())) << where;
            if (spec.dx) {
                ASSERT_TRUE(l4j::same_bits(ref.dx.floats(), c.dx.floats())) << where;
            }
            ASSERT_EQ(ref.predicted, c.predicted) << where;
        }
    }
    l4j::on_gpu(tolerance, [&](double allowed) {
        if (spec.layout == L4J_COMPUTE_BF16) return; // a layout of the CPU
        Case exact(spec, L4J_ISA_REF64, 2), c(spec, L4J_ISA_CUDA, 0);
        if (bf16) {
            l4j_linear_cross_entropy a = c.args();
            l4j_error error = {};
            EXPECT_EQ(L4J_ENOTSUP, L4J_RUN(linear_cross_entropy_forward, c.context.queue(), &a)(&error));
            EXPECT_NE(
                std::string::npos,
                std::string(error.message).find("compute is L4J_COMPUTE_BF16; expected L4J_COMPUTE_F32 on a GPU"));
            return;
        }
        exact.run();
        c.run();
        EXPECT_LE(l4j::relative_error(c.loss.values(), exact.loss.values()), tolerance);
        EXPECT_LE(l4j::relative_error(c.lse.values(), exact.lse.values()), tolerance);
        if (spec.dx) {
            EXPECT_LE(l4j::relative_error(c.dx.values(), exact.dx.values()), allowed);
        }
        EXPECT_EQ(exact.predicted, c.predicted);
        EXPECT_EQ(0, c.numeric.operation);
    });
}

TEST(LinearCrossEntropyTest, InBf16) {
    for (int32_t layout : {L4J_COMPUTE_F32, L4J_COMPUTE_BF16}) {
        for (int64_t size : {1, 15, 17, 31, 33, 64, 100, 257}) {
            Spec by_m, by_k, by_v;
            by_m.M = size;
            by_k.K = size;
            by_v.V = size;
            for (Spec spec : {by_m, by_k, by_v}) {
                spec.compute = L4J_COMPUTE_BF16;
                spec.layout = layout;
                spec.mode = layout ? L4J_WEIGHT_PACK : L4J_WEIGHT_BORROW;
                check(spec, {1, 3});
                if (HasFatalFailure()) return;
            }
        }
        Spec blocks; // of 1024 values of the vocabulary, and more steps than are gathered at once
        blocks.compute = L4J_COMPUTE_BF16;
        blocks.layout = layout;
        blocks.mode = layout ? L4J_WEIGHT_PACK : L4J_WEIGHT_BORROW;
        blocks.dtype = L4J_BF16;
        blocks.M = 40;
        blocks.K = 300;
        blocks.V = 2500;
        blocks.transposed = true;
        check(blocks, {2});
        if (HasFatalFailure()) return;
    }
}

TEST(LinearCrossEntropyTest, EdgesOfEveryDimension) {
    for (int64_t size : {1, 3, 5, 6, 7, 15, 16, 17, 31, 33, 64, 100, 257, 577}) {
        Spec by_m, by_k, by_v;
        by_m.M = size;
        by_k.K = size;
        by_v.V = size;
        for (const Spec &spec : {by_m, by_k, by_v}) {
            check(spec, {1, 3});
            if (HasFatalFailure()) return;
        }
    }
}

TEST(LinearCrossEntropyTest, EveryDtypeAndLayout) {
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            Spec spec;
            spec.M = 200;
            spec.V = 350;
            spec.dtype = dtype;
            spec.mode = mode;
            spec.pad = 2;
            check(spec, {2});
            if (HasFatalFailure()) return;
        }
    }
}

TEST(LinearCrossEntropyTest, SeveralChunks) {
    Spec spec;
    spec.M = 700; // chunks hold at most 256 rows
    spec.V = 40;
    spec.ignored = 4;
    check(spec, {1, 5});
    spec.ignored = 0;
    spec.transposed = true;
    check(spec, {2});
}

TEST(LinearCrossEntropyTest, LargeVocabulary) {
    Spec spec;
    spec.M = 30;
    spec.K = 8;
    spec.V = 151936;
    check(spec, {2});
    Case c(spec, l4j::tiers().back(), 2);
    c.x.mutable_tensor().shape[0] = 1; // the workspace of many rows is bounded
    l4j_linear_cross_entropy args = c.args();
    std::vector<int32_t> targets(100000, -100), predicted(100000);
    for (Operand *o : {&c.x, &c.dx}) o->mutable_tensor().shape[0] = 100000;
    for (Operand *o : {&c.loss, &c.lse}) o->mutable_tensor().shape[0] = 100000;
    args.targets = targets.data();
    args.predicted = predicted.data();
    size_t bytes = 0;
    L4J_ASSERT_OK(l4j_linear_cross_entropy_forward_workspace(c.context.queue(), &args, &bytes, error));
    EXPECT_LE(bytes, size_t{64} << 20);
}

TEST(LinearCrossEntropyTest, LossOnlyAndDefaults) {
    Spec spec;
    spec.dx = false;
    spec.row_weight = false;
    check(spec);
    spec.dx = true;
    check(spec);
}

TEST(LinearCrossEntropyTest, IgnoredRows) {
    Spec spec;
    spec.ignored = 1;
    for (int32_t isa : l4j::tiers()) {
        Case c(spec, isa, 2);
        c.run();
        for (int64_t m = 0; m < spec.M; m++) {
            EXPECT_EQ(0, c.loss.at(m));
            EXPECT_EQ(0, c.lse.at(m));
            EXPECT_EQ(-1, c.predicted[static_cast<size_t>(m)]);
        }
        for (double v : c.dx.values()) ASSERT_EQ(0, v);
    }
    spec.M = 0;
    check(spec);
}

// A confident prediction: z far from 0 and p close to 1 lose nothing to cancellation.
TEST(LinearCrossEntropyTest, LargeLogits) {
    Spec spec;
    spec.scale = 30;
    check(spec);
    for (int32_t isa : l4j::tiers()) {
        Spec one;
        one.M = 1;
        one.K = 1;
        one.V = 2;
        one.ignored = 0;
        one.row_weight = false;
        Case c(one, isa, 1);
        l4j::TestWeight weight(c.context, 2, 1, {1, 0});
        c.x.fill(10.0);
        c.targets[0] = 0;
        l4j_linear_cross_entropy args = c.args();
        args.weight = weight.get();
        L4J_ASSERT_OK(L4J_RUN(linear_cross_entropy_forward, c.context.queue(), &args)(error));
        EXPECT_NEAR(std::log1p(std::exp(-10.0)), c.loss.at(0), 1e-7); // as exact as 1 + 4.5e-5 in fp32 allows
        EXPECT_EQ(0, c.predicted[0]);
    }
}

TEST(LinearCrossEntropyTest, TiesGoToTheLowestIndex) {
    for (int32_t isa : l4j::tiers()) {
        Spec spec;
        spec.M = 4;
        spec.V = 600;
        spec.ignored = 0;
        Case c(spec, isa, 2);
        for (int64_t best : {0, 1, 17, 255, 256, 300, 598}) {
            std::vector<float> values(600 * 21, 0.0f);
            for (int64_t v : {best, int64_t{599}}) {
                for (int64_t k = 0; k < 21; k++) values[static_cast<size_t>(v * 21 + k)] = 1;
            }
            l4j::TestWeight weight(c.context, 600, 21, values);
            c.x.fill(0.5);
            l4j_linear_cross_entropy args = c.args();
            args.weight = weight.get();
            L4J_ASSERT_OK(L4J_RUN(linear_cross_entropy_forward, c.context.queue(), &args)(error));
            for (int32_t p : c.predicted) ASSERT_EQ(best, p) << l4j::tier_name(isa);
        }
    }
}

TEST(LinearCrossEntropyTest, NonFiniteRowIsReportedOnce) {
    std::vector<int32_t> all = l4j::tiers();
    all.push_back(L4J_ISA_REF64);
    for (int32_t isa : all) {
        for (double bad : {std::nan(""), static_cast<double>(INFINITY)}) {
            Spec spec;
            spec.ignored = 0;
            Case c(spec, isa, 3);
            c.x.set(7 * spec.K + 2, bad);
            c.x.set(5 * spec.K, bad);
            c.run();
            EXPECT_EQ(L4J_OP_LINEAR_CROSS_ENTROPY, c.numeric.operation);
            EXPECT_EQ(5, c.numeric.tensor);
            EXPECT_EQ(41, c.numeric.step);
            EXPECT_EQ(-1, c.predicted[5]);
            EXPECT_TRUE(std::isnan(c.loss.at(5)));
            EXPECT_TRUE(std::isfinite(c.loss.at(6)));
            c.step = 42;
            c.run();
            EXPECT_EQ(41, c.numeric.step);
        }
    }
}

TEST(LinearCrossEntropyTest, AHundredRunsGiveTheSameBits) {
    for (int32_t isa : l4j::tiers()) {
        Spec spec;
        spec.M = 40;
        Case c(spec, isa, 5);
        c.run();
        std::vector<float> loss = c.loss.floats(), dx = c.dx.floats();
        for (int run = 1; run < 100; run++) {
            c.run();
            ASSERT_TRUE(l4j::same_bits(loss, c.loss.floats()));
            ASSERT_TRUE(l4j::same_bits(dx, c.dx.floats()));
        }
    }
}

TEST(LinearCrossEntropyTest, GradientIsAFiniteDifference) {
    Spec spec;
    spec.ignored = 4;
    Case c(spec, L4J_ISA_REF64, 2);
    c.run();
    std::vector<double> dx = c.dx.values();
    for (int64_t i = 0; i < c.x.size(); i++) {
        size_t m = static_cast<size_t>(i / spec.K);
        double old = c.x.at(i), h = 1e-5;
        c.x.set(i, old + h);
        c.run();
        double up = c.loss.at(static_cast<int64_t>(m));
        c.x.set(i, old - h);
        c.run();
        double down = c.loss.at(static_cast<int64_t>(m));
        c.x.set(i, old);
        double g = static_cast<double>(c.row_weight[m]) * static_cast<double>(c.grad_scale);
        ASSERT_NEAR(g * (up - down) / (2 * h), dx[static_cast<size_t>(i)], 1e-8) << i;
    }
}

// A workspace is asked for before the first batch is known.
TEST(LinearCrossEntropyTest, WorkspaceDoesNotDependOnTargets) {
    Case c(Spec{}, L4J_ISA_REF, 1);
    l4j_linear_cross_entropy args = c.args();
    c.targets[4] = 1 << 30;
    size_t bytes = 0;
    L4J_ASSERT_OK(l4j_linear_cross_entropy_forward_workspace(c.context.queue(), &args, &bytes, error));
    EXPECT_GT(bytes, 0u);
}

TEST(LinearCrossEntropyTest, BadArgumentsAreRefused) {
    using Args = l4j_linear_cross_entropy;
    struct {
        l4j_status status;
        const char *message;
        void (*change)(Case &, Args &);
    } cases[] = {
        {L4J_EABI, "struct_size is 3, expected", [](Case &, Args &a) { a.struct_size = 3; }},
        {L4J_EINVAL, "reserved[2] is not zero", [](Case &, Args &a) { a.reserved[2] = 1; }},
        {L4J_EINVAL, "compute is 3, expected L4J_COMPUTE_F32 or L4J_COMPUTE_BF16",
         [](Case &, Args &a) { a.compute = 3; }},
        {L4J_ENOTSUP, "softcap is 30; it is not supported yet, expected 0", [](Case &, Args &a) { a.softcap = 30; }},
        {L4J_EINVAL, "x is NULL", [](Case &, Args &a) { a.x = nullptr; }},
        {L4J_EINVAL, "weight is NULL", [](Case &, Args &a) { a.weight = nullptr; }},
        {L4J_EINVAL, "weight is [50, 21], expected [any, 20]",
         [](Case &c, Args &) { c.x.mutable_tensor().shape[1] = 20; }},
        {L4J_EINVAL, "targets is NULL", [](Case &, Args &a) { a.targets = nullptr; }},
        {L4J_EINVAL, "targets[4] is 50, expected 0 to 49, or -100 to ignore the row",
         [](Case &c, Args &) { c.targets[4] = 50; }},
        {L4J_EINVAL, "targets[4] is -1, expected", [](Case &c, Args &) { c.targets[4] = -1; }},
        {L4J_EINVAL, "loss is F32 [8], expected F32 [9] because x has 9 rows",
         [](Case &c, Args &) { c.loss.mutable_tensor().shape[0] = 8; }},
        {L4J_EINVAL, "lse is NULL", [](Case &, Args &a) { a.lse = nullptr; }},
        {L4J_EINVAL, "dx is F32 [9, 20], expected F32 [9, 21] because that is the shape of x",
         [](Case &c, Args &) { c.dx.mutable_tensor().shape[1] = 20; }},
        {L4J_EINVAL, "an output needs an innermost stride of 1",
         [](Case &c, Args &) { c.dx.mutable_tensor().stride[0] = 3; }},
        {L4J_EINVAL, "dx and x have the same memory", [](Case &, Args &a) { a.dx = a.x; }},
    };
    for (auto &bad : cases) {
        Case c(Spec{}, L4J_ISA_REF, 1);
        l4j_linear_cross_entropy args = c.args();
        bad.change(c, args);
        l4j_error error = {};
        EXPECT_EQ(bad.status, L4J_RUN(linear_cross_entropy_forward, c.context.queue(), &args)(&error));
        EXPECT_NE(nullptr, strstr(error.message, bad.message)) << error.message;
        EXPECT_TRUE(std::isnan(c.loss.at(0))) << "written to before the refusal";
    }
}

} // namespace
