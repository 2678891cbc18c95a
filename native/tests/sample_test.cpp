#include "tier_check.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace {

using l4j::Context;
using l4j::Operand;

struct Call {
    Call(int32_t isa, int64_t M, int64_t V, uint64_t seed = 1, float scale = 4)
        : logits(isa, {M, V}), memory(static_cast<size_t>(M) * 4) {
        logits.fill(l4j::Random(seed).floats(M * V, scale));
        hyper = {1, 1, 0, 0, 42, 0};
        args.struct_size = sizeof args;
        args.logits = logits.get();
        args.hyper = &hyper;
        args.ids = memory.as<int32_t>();
    }
    Call(const Call &) = delete;
    void run(const Context &context) { L4J_ASSERT_OK(L4J_RUN(sample_forward, context.queue(), &args)(error)); }
    int32_t id(int64_t m = 0) const { return args.ids[m]; }
    Operand logits;
    l4j::Guarded memory;
    l4j_sample_hyper hyper;
    l4j_sample args = {};
};

// The distribution as transformers' warpers leave it, by full sorting: index → probability.
std::map<int32_t, double> distribution(const Operand &logits, int64_t m, const l4j_sample_hyper &hyper) {
    int64_t V = logits.get()->shape[1];
    std::vector<int32_t> order(static_cast<size_t>(V));
    std::iota(order.begin(), order.end(), 0);
    auto logit = [&](int32_t v) { return logits.at(m * V + v) / hyper.temperature; };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
    size_t kept = order.size();
    if (hyper.top_k > 0 && hyper.top_k < V) {
        double kth = logit(order[static_cast<size_t>(hyper.top_k) - 1]);
        kept = 0;
        while (kept < order.size() && logit(order[kept]) >= kth) kept++;
    }
    std::vector<double> weights;
    for (size_t i = 0; i < kept; i++) weights.push_back(std::exp(logit(order[i]) - logit(order[0])));
    double sum = std::accumulate(weights.begin(), weights.end(), 0.0), before = 0;
    if (hyper.top_p < 1) {
        size_t n = 0;
        while (n < kept && (n == 0 || before < hyper.top_p * sum)) before += weights[n++];
        kept = n;
        sum = before;
    }
    std::map<int32_t, double> probabilities;
    for (size_t i = 0; i < kept; i++) probabilities[order[i]] = weights[i] / sum;
    return probabilities;
}

// Chi-squared over 20000 draws, as rows that share their logits: only allowed tokens, each as often as its probability says.
void check_distribution(Call &call, const Context &context) {
    const int draws = 20000;
    std::vector<int32_t> ids(draws);
    l4j_tensor rows = *call.logits.get();
    rows.shape[0] = draws;
    rows.stride[0] = 0;
    l4j_sample args = call.args;
    args.logits = &rows;
    args.ids = ids.data();
    L4J_ASSERT_OK(L4J_RUN(sample_forward, context.queue(), &args)(error));
    std::map<int32_t, int> counts;
    for (int32_t id : ids) counts[id]++;
    std::map<int32_t, double> expected = distribution(call.logits, 0, call.hyper);
    double chi2 = 0, rest_expected = 0, rest_found = 0;
    int cells = 0;
    for (auto [id, n] : counts) ASSERT_TRUE(expected.count(id)) << "token " << id << " is not allowed";
    for (auto [id, p] : expected) {
        if (p * draws < 10) {
            rest_expected += p * draws;
            rest_found += counts[id];
            continue;
        }
        chi2 += std::pow(counts[id] - p * draws, 2) / (p * draws);
        cells++;
    }
    if (rest_expected > 10) {
        chi2 += std::pow(rest_found - rest_expected, 2) / rest_expected;
        cells++;
    }
    // Mean cells − 1, standard deviation sqrt(2 (cells − 1)); the seed is fixed, so this passes always or never.
    EXPECT_LT(chi2, cells - 1 + 5 * std::sqrt(2.0 * cells)) << cells << " cells";
}

void check_distributions(int32_t isa) {
    Context context(isa);
    for (double temperature : {0.5, 1.0, 2.0}) {
        for (int32_t top_k : {0, 1, 5, 100}) {
            for (double top_p : {1.0, 0.9, 0.3, 1e-9}) {
                SCOPED_TRACE("T=" + std::to_string(temperature) + " k=" + std::to_string(top_k) +
                             " p=" + std::to_string(top_p));
                Call call(isa, 1, 40);
                call.hyper.temperature = temperature;
                call.hyper.top_k = top_k;
                call.hyper.top_p = top_p;
                check_distribution(call, context);
            }
        }
    }
}

TEST(SampleTest, Distribution) {
    check_distributions(L4J_ISA_AUTO);
    if (l4j::has_gpu()) check_distributions(L4J_ISA_CUDA);
}

TEST(SampleTest, GreedyTakesTheFirstOfTheLargest) {
    for (int32_t isa : l4j::devices()) {
        Context context(isa, 2);
        Call call(isa, 3, 50);
        call.hyper.temperature = 0;
        for (int64_t v : {7, 20, 49}) call.logits.set(50 + v, 9);
        call.logits.set(2 * 50, 9);
        call.run(context);
        std::vector<double> first = call.logits.values();
        EXPECT_EQ(std::max_element(first.begin(), first.begin() + 50) - first.begin(), call.id(0));
        EXPECT_EQ(7, call.id(1));
        EXPECT_EQ(0, call.id(2));
    }
}

// Equal logits at the k-th place all stay, as TopKLogitsWarper keeps them; a nucleus takes the lower ids of a tie.
TEST(SampleTest, Ties) {
    Context context(L4J_ISA_AUTO);
    Call call(L4J_ISA_AUTO, 1, 6);
    const float logits[] = {1, 2, 1, 3, 1, 0};
    for (int64_t v = 0; v < 6; v++) call.logits.set(v, logits[v]);
    call.hyper.top_k = 3;
    EXPECT_EQ(5u, distribution(call.logits, 0, call.hyper).size());
    check_distribution(call, context);
    call.hyper.top_k = 0;
    for (int64_t v = 0; v < 6; v++) call.logits.set(v, 0);
    call.hyper.top_p = 0.5;
    check_distribution(call, context);
    std::map<int32_t, double> kept = distribution(call.logits, 0, call.hyper);
    EXPECT_EQ(3u, kept.size());
    EXPECT_EQ(2, kept.rbegin()->first);
}

TEST(SampleTest, ImpossibleTokensAreNeverDrawn) {
    Context context(L4J_ISA_AUTO);
    Call call(L4J_ISA_AUTO, 1, 30);
    for (int64_t v = 0; v < 30; v++) call.logits.set(v, v % 3 == 1 ? 0.1f * static_cast<float>(v) : -INFINITY);
    for (int32_t top_k : {0, 20}) {
        for (double top_p : {1.0, 0.99}) {
            call.hyper.top_k = top_k;
            call.hyper.top_p = top_p;
            for (call.hyper.step = 0; call.hyper.step < 2000; call.hyper.step++) {
                call.run(context);
                ASSERT_EQ(1, call.id() % 3);
            }
        }
    }
}

// The same token on every tier, for any number of threads and in any batch; another seed or step draws anew.
TEST(SampleTest, DrawsDependOnSeedStepAndRowOnly) {
    Context reference(L4J_ISA_REF);
    Call ref(L4J_ISA_REF, 9, 1000, 1, 0.1f);
    ref.hyper.top_p = 0.99;
    ref.run(reference);
    std::vector<int32_t> ids(ref.args.ids, ref.args.ids + 9);
    for (int32_t isa : l4j::devices()) {
        for (int threads : {1, 2, 5}) {
            Context context(isa, threads);
            Call call(isa, 9, 1000, 1, 0.1f);
            call.hyper.top_p = 0.99;
            call.run(context);
            EXPECT_EQ(ids, std::vector<int32_t>(call.args.ids, call.args.ids + 9));
            Call fewer(isa, 4, 1000, 1, 0.1f);
            fewer.hyper.top_p = 0.99;
            fewer.run(context);
            EXPECT_EQ(std::vector<int32_t>(ids.begin(), ids.begin() + 4),
                      std::vector<int32_t>(fewer.args.ids, fewer.args.ids + 4));
        }
    }
    Context oracle(L4J_ISA_REF64);
    Call exact(L4J_ISA_REF64, 9, 1000, 1, 0.1f);
    exact.hyper.top_p = 0.99;
    exact.run(oracle);
    EXPECT_EQ(ids, std::vector<int32_t>(exact.args.ids, exact.args.ids + 9));
    ref.hyper.seed = 43;
    ref.run(reference);
    EXPECT_NE(ids, std::vector<int32_t>(ref.args.ids, ref.args.ids + 9));
    ref.hyper.seed = 42;
    ref.hyper.step = int64_t{1} << 40;
    ref.run(reference);
    EXPECT_NE(ids, std::vector<int32_t>(ref.args.ids, ref.args.ids + 9));
}

TEST(SampleTest, AHundredRunsDrawTheSameTokens) {
    Context context(L4J_ISA_AUTO, 5);
    std::vector<int32_t> first;
    for (int run = 0; run < 100; run++) {
        Call call(L4J_ISA_AUTO, 23, 500, 1, 0.1f);
        call.hyper.top_k = 300;
        call.hyper.top_p = 0.95;
        call.run(context);
        std::vector<int32_t> ids(call.args.ids, call.args.ids + 23);
        if (run == 0) first = ids;
        ASSERT_EQ(first, ids) << "run " << run;
    }
}

TEST(SampleTest, StridedLogits) {
    for (int32_t isa : l4j::devices()) {
        Context context(isa);
        Call plain(isa, 4, 60), strided(isa, 4, 60);
        strided.logits = l4j::transposed_layout(isa, strided.logits);
        plain.run(context);
        strided.run(context);
        for (int64_t m = 0; m < 4; m++) EXPECT_EQ(plain.id(m), strided.id(m));
    }
}

TEST(SampleTest, Messages) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        auto expect = [&](const std::function<void(Call &)> &spoil, l4j_status status, const std::string &message) {
            Call call(isa, 3, 5);
            spoil(call);
            l4j_error error = {};
            EXPECT_EQ(status, L4J_RUN(sample_forward, context.queue(), &call.args)(&error));
            EXPECT_EQ("sample_forward: " + message, error.message);
            for (int64_t m = 0; m < 3; m++)
                EXPECT_EQ(-1, call.memory.as<int32_t>()[m]) << "written in spite of the error";
        };
        expect([](Call &c) { c.args.reserved0 = 1; }, L4J_EINVAL, "reserved0 is not zero");
        expect([](Call &c) { c.args.logits = nullptr; }, L4J_EINVAL, "logits is NULL");
        expect([](Call &c) { c.args.hyper = nullptr; }, L4J_EINVAL, "hyper is NULL");
        expect([](Call &c) { c.args.ids = nullptr; }, L4J_EINVAL, "ids is NULL");
        expect([](Call &c) { c.logits.mutable_tensor().shape[1] = 0; }, L4J_EINVAL,
               "logits has 0 columns, expected 1 to 2147483647");
        expect([](Call &c) { c.hyper.temperature = -1; }, L4J_EINVAL,
               "hyper->temperature is -1, expected a finite value ≥ 0");
        expect([](Call &c) { c.hyper.temperature = NAN; }, L4J_EINVAL,
               "hyper->temperature is nan, expected a finite value ≥ 0");
        expect([](Call &c) { c.hyper.top_p = 0; }, L4J_EINVAL, "hyper->top_p is 0, expected 0 < top_p ≤ 1 (1 = off)");
        expect([](Call &c) { c.hyper.top_p = 1.5; }, L4J_EINVAL,
               "hyper->top_p is 1.5, expected 0 < top_p ≤ 1 (1 = off)");
        expect([](Call &c) { c.hyper.top_k = -1; }, L4J_EINVAL, "hyper->top_k is -1, expected 0 (off) or more");
        expect([](Call &c) { c.hyper.reserved = 1; }, L4J_EINVAL, "hyper->reserved is not zero");
        for (float bad : {NAN, INFINITY}) {
            expect([&](Call &c) { c.logits.set(2 * 5 + 4, bad); }, L4J_ENUMERIC,
                   "row 2 of logits has a NaN or +Inf, or nothing but −Inf: no token can be drawn");
        }
        expect([](Call &c) { c.logits.fill(-INFINITY); }, L4J_ENUMERIC,
               "row 0 of logits has a NaN or +Inf, or nothing but −Inf: no token can be drawn");
    }
}

} // namespace
