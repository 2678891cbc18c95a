#include "tier_check.h"

namespace {

using l4j::Context;
using l4j::Operand;

// Groups of tensors with their state. Sizes around lanes and around the blocks of the norm.
struct Call {
    Call(int32_t isa, const std::vector<std::vector<int64_t>> &sizes, double max_grad_norm = 0) {
        args.struct_size = sizeof args;
        args.flags = L4J_ADAMW_ZERO_GRADS;
        args.group_count = static_cast<int64_t>(sizes.size());
        groups.resize(sizes.size());
        hyper.resize(sizes.size());
        norms.assign(sizes.size(), -1);
        l4j::Random random(1);
        for (const std::vector<int64_t> &group : sizes) {
            for (int64_t n : group) {
                for (std::vector<Operand> *list : {&params, &grads, &exp_avgs, &exp_avg_sqs})
                    list->emplace_back(isa, std::vector<int64_t>{n});
                params.back().fill(random.floats(n));
                exp_avgs.back().fill(0.0);
                exp_avg_sqs.back().fill(0.0);
            }
        }
        for (size_t i = 0; i < params.size(); i++) {
            for (int list = 0; list < 4; list++) tensors[list].push_back(*lists()[list]->at(i).get());
        }
        size_t first = 0;
        for (size_t g = 0; g < sizes.size(); g++) {
            groups[g] = {static_cast<int64_t>(sizes[g].size()),
                         tensors[0].data() + first,
                         tensors[1].data() + first,
                         tensors[2].data() + first,
                         tensors[3].data() + first,
                         &hyper[g],
                         &norms[g],
                         nullptr,
                         nullptr};
            hyper[g] = {1e-2 / static_cast<double>(g + 1), 0.9, 0.999, 1e-8, 0.01, max_grad_norm, 0.5, 0};
            first += sizes[g].size();
        }
        args.groups = groups.data();
        args.numeric = &numeric;
        numeric = {};
    }
    Call(const Call &) = delete;
    std::vector<std::vector<Operand> *> lists() { return {&params, &grads, &exp_avgs, &exp_avg_sqs}; }
    void set_grads(int64_t step) {
        l4j::Random random(static_cast<uint64_t>(100 + step));
        for (Operand &g : grads) g.fill(random.floats(g.size()));
    }
    void step(const Context &context) {
        for (l4j_adamw_hyper &h : hyper) h.step++;
        set_grads(hyper[0].step);
        L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &args)(error));
    }
    std::vector<Operand> params, grads, exp_avgs, exp_avg_sqs;
    std::vector<l4j_tensor> tensors[4];
    std::vector<l4j_adamw_group> groups;
    std::vector<l4j_adamw_hyper> hyper;
    std::vector<double> norms;
    l4j_numeric_status numeric;
    l4j_adamw args = {};
};

const std::vector<std::vector<int64_t>> kSizes = {{1, 15, 16, 17, 4096, 0, 4097}, {}, {12300, 33}};

TEST(AdamwTest, TiersAgree) {
    for (double max_grad_norm : {0.0, 1.0}) {
        l4j::check_tiers(
            [&](const Context &context, int32_t isa) {
                Call call(isa, kSizes, max_grad_norm);
                for (int step = 0; step < 3; step++) call.step(context);
                l4j::Outputs outputs;
                for (size_t i = 0; i < call.params.size(); i++) {
                    outputs.push_back({"param", call.params[i]});
                    outputs.push_back({"exp_avg", call.exp_avgs[i]});
                    outputs.push_back({"exp_avg_sq", call.exp_avg_sqs[i]});
                    outputs.push_back({"grad", call.grads[i]});
                }
                Operand norms(isa, {static_cast<int64_t>(call.norms.size())});
                for (size_t g = 0; g < call.norms.size(); g++) norms.set(static_cast<int64_t>(g), call.norms[g]);
                outputs.push_back({"norm", norms});
                return outputs;
            },
            2e-6);
    }
}

// Ten steps of torch.optim.AdamW and clip_grad_norm_, written down again in fp64.
TEST(AdamwTest, TenStepsOfTheDefinition) {
    Context context(L4J_ISA_REF64, 2);
    Call call(L4J_ISA_REF64, kSizes, 1.5);
    std::vector<std::vector<double>> p, m, v;
    for (Operand &x : call.params) {
        p.push_back(x.values());
        m.emplace_back(x.size(), 0.0);
        v.emplace_back(x.size(), 0.0);
    }
    for (int step = 1; step <= 10; step++) {
        call.set_grads(step);
        size_t first = 0;
        std::vector<double> norms;
        for (size_t g = 0; g < kSizes.size(); g++) {
            const l4j_adamw_hyper &h = call.hyper[g];
            double square = 0;
            for (size_t t = first; t < first + kSizes[g].size(); t++) {
                for (double x : call.grads[t].values()) square += x * h.grad_scale * x * h.grad_scale;
            }
            norms.push_back(std::sqrt(square));
            double clip = std::min(1.0, h.max_grad_norm / (norms.back() + 1e-6));
            for (size_t t = first; t < first + kSizes[g].size(); t++) {
                for (size_t i = 0; i < p[t].size(); i++) {
                    double grad = call.grads[t].at(static_cast<int64_t>(i)) * h.grad_scale * clip;
                    p[t][i] *= 1 - h.learning_rate * h.weight_decay;
                    m[t][i] = h.beta1 * m[t][i] + (1 - h.beta1) * grad;
                    v[t][i] = h.beta2 * v[t][i] + (1 - h.beta2) * grad * grad;
                    double bias1 = 1 - std::pow(h.beta1, step), bias2 = 1 - std::pow(h.beta2, step);
                    p[t][i] -= h.learning_rate / bias1 * m[t][i] / (std::sqrt(v[t][i]) / std::sqrt(bias2) + h.epsilon);
                }
            }
            first += kSizes[g].size();
        }
        call.step(context);
        for (size_t g = 0; g < kSizes.size(); g++) EXPECT_NEAR(norms[g], call.norms[g], 1e-12 * (1 + norms[g]));
    }
    EXPECT_GT(call.norms[0], 1.5); // clipping happened
    for (size_t t = 0; t < p.size(); t++) {
        EXPECT_LT(l4j::relative_error(call.params[t].values(), p[t]), 1e-12);
        EXPECT_LT(l4j::relative_error(call.exp_avgs[t].values(), m[t]), 1e-12);
        EXPECT_LT(l4j::relative_error(call.exp_avg_sqs[t].values(), v[t]), 1e-12);
        for (double g : call.grads[t].values()) ASSERT_EQ(0, g);
    }
}

TEST(AdamwTest, GradientsStayWithoutTheFlag) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        Call call(isa, {{40}});
        call.args.flags = 0;
        call.args.numeric = nullptr;
        call.groups[0].grad_norm = nullptr;
        call.step(context);
        EXPECT_EQ(l4j::Random(101).floats(40), call.grads[0].floats());
    }
}

// The group with the bad gradient stands still, the others move on, and the first place is reported.
TEST(AdamwTest, NonFiniteGradients) {
    for (int32_t isa : l4j::tiers()) {
        for (float bad : {NAN, INFINITY}) {
            Context context(isa, 2);
            Call call(isa, {{20}, {30, 5000, 10}, {40}});
            call.step(context);
            EXPECT_EQ(L4J_OP_NONE, call.numeric.operation);
            std::vector<std::vector<float>> before;
            for (Operand &p : call.params) before.push_back(p.floats());
            std::vector<float> state = call.exp_avgs[2].floats();
            for (l4j_adamw_hyper &h : call.hyper) h.step++;
            call.set_grads(2);
            call.grads[2].set(4999, bad);
            L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &call.args)(error));
            EXPECT_EQ(L4J_OP_ADAMW, call.numeric.operation);
            EXPECT_EQ(2, call.numeric.step);
            EXPECT_EQ(1, call.numeric.group);
            EXPECT_EQ(1, call.numeric.tensor);
            EXPECT_FALSE(std::isfinite(call.norms[1]));
            for (size_t t : {1, 2, 3}) EXPECT_EQ(before[t], call.params[t].floats());
            EXPECT_EQ(state, call.exp_avgs[2].floats());
            for (size_t t : {0, 4}) EXPECT_NE(before[t], call.params[t].floats());
            for (float g : call.grads[2].floats()) ASSERT_EQ(0, g); // zeroed, so that the next step starts clean
            l4j_numeric_status kept = call.numeric;
            call.grads[0].set(0, NAN);
            L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &call.args)(error));
            EXPECT_EQ(0, memcmp(&kept, &call.numeric, sizeof kept)) << "only the first report counts";
        }
    }
}

TEST(AdamwTest, RepeatsBitForBit) {
    Context context(L4J_ISA_AUTO, 5);
    Call first(L4J_ISA_AUTO, kSizes, 1);
    for (int step = 0; step < 2; step++) first.step(context);
    for (int run = 0; run < 100; run++) {
        Call again(L4J_ISA_AUTO, kSizes, 1);
        for (int step = 0; step < 2; step++) again.step(context);
        ASSERT_EQ(first.norms, again.norms);
        for (size_t t = 0; t < first.params.size(); t++)
            ASSERT_TRUE(l4j::same_bits(first.params[t].floats(), again.params[t].floats()));
    }
}

TEST(AdamwTest, NothingToDo) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call none(isa, {}), empty(isa, {{}, {0}});
        none.args.groups = nullptr;
        L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &none.args)(error));
        for (l4j_adamw_hyper &h : empty.hyper) h.step = 1;
        L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &empty.args)(error));
        EXPECT_EQ(std::vector<double>({0, 0}), empty.norms);
    }
}

TEST(AdamwTest, Messages) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        auto expect = [&](const std::function<void(Call &)> &spoil, const std::string &message) {
            Call call(isa, {{4}, {5, 6}});
            for (l4j_adamw_hyper &h : call.hyper) h.step = 1;
            call.set_grads(1);
            std::vector<float> before = call.params[0].floats();
            spoil(call);
            l4j_error error = {};
            EXPECT_EQ(L4J_EINVAL, L4J_RUN(adamw_step, context.queue(), &call.args)(&error));
            EXPECT_EQ("adamw_step: " + message, error.message);
            EXPECT_EQ(before, call.params[0].floats());
        };
        expect([](Call &c) { c.args.flags = 4; }, "flags are 0x4, expected L4J_ADAMW_ZERO_GRADS or 0");
        expect([](Call &c) { c.args.reserved[2] = 1; }, "reserved[2] is not zero");
        expect([](Call &c) { c.args.group_count = -1; }, "group_count is -1, expected 0 or more");
        expect([](Call &c) { c.args.groups = nullptr; }, "groups is NULL");
        expect([](Call &c) { c.groups[1].tensor_count = -2; }, "groups[1].tensor_count is -2, expected 0 or more");
        expect([](Call &c) { c.groups[1].params = nullptr; }, "groups[1].params is NULL");
        expect([](Call &c) { c.groups[1].exp_avg_sqs = nullptr; }, "groups[1].exp_avg_sqs is NULL");
        expect([](Call &c) { c.groups[0].hyper = nullptr; }, "groups[0].hyper is NULL");
        expect([](Call &c) { c.tensors[1][2].shape[0] = 7; }, "groups[1].grads[1] is F32 [7], expected F32 [6]");
        expect([](Call &c) { c.tensors[0][2].dtype = L4J_BF16; },
               "groups[1].params[1] is BF16 [6], expected F32 [any]");
        expect([](Call &c) { c.tensors[0][0].ndim = 5; }, "groups[0].params[0].ndim is 5, expected 1 to 4");
        expect(
            [](Call &c) {
                for (std::vector<l4j_tensor> &list : c.tensors) {
                    list[2].ndim = 2;
                    list[2].shape[0] = 2, list[2].shape[1] = 3;
                    list[2].stride[0] = 3, list[2].stride[1] = 1;
                }
                c.tensors[2][2].stride[0] = 4;
            },
            "groups[1].exp_avgs[1] has stride 4 in dimension 0, expected 3: contiguous");
        expect([](Call &c) { c.hyper[1].step = 0; }, "groups[1].hyper->step is 0, expected 1 or more");
        expect([](Call &c) { c.hyper[0].learning_rate = -1; },
               "groups[0].hyper->learning_rate is -1, expected a finite value ≥ 0");
        expect([](Call &c) { c.hyper[0].beta1 = 1; }, "groups[0].hyper->beta1 is 1, expected 0 ≤ value < 1");
        expect([](Call &c) { c.hyper[0].beta2 = -0.1; }, "groups[0].hyper->beta2 is -0.1, expected 0 ≤ value < 1");
        expect([](Call &c) { c.hyper[0].epsilon = NAN; },
               "groups[0].hyper->epsilon is nan, expected a finite value ≥ 0");
        expect([](Call &c) { c.hyper[0].weight_decay = INFINITY; },
               "groups[0].hyper->weight_decay is inf, expected a finite value ≥ 0");
        expect([](Call &c) { c.hyper[0].max_grad_norm = -2; },
               "groups[0].hyper->max_grad_norm is -2, expected a finite value ≥ 0");
        expect([](Call &c) { c.hyper[0].grad_scale = NAN; },
               "groups[0].hyper->grad_scale is nan, expected a finite value ≥ 0");
    }
}

} // namespace
