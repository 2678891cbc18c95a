// adamw with 8-bit block-wise state: bitsandbytes' own steps, the same bits on every tier and on a GPU, and what is refused.
#include "safetensors.h"

#include <functional>

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Stored;

constexpr int64_t kBlock = L4J_ADAMW_STATE_BLOCK;

// Values in guarded memory.
template <class T> struct Values {
    std::shared_ptr<Guarded> memory;
    int64_t count;

    explicit Values(const std::vector<T> &from)
        : memory(std::make_shared<Guarded>(from.size() * sizeof(T))), count(static_cast<int64_t>(from.size())) {
        if (!from.empty()) memcpy(memory->as(), from.data(), from.size() * sizeof(T));
    }
    Values(int64_t n, T value) : Values(std::vector<T>(static_cast<size_t>(n), value)) {}
    T *data() const { return memory->template as<T>(); }
    std::vector<T> get() const { return std::vector<T>(data(), data() + count); }
    l4j_tensor tensor() const {
        return l4j::tensor(data(), sizeof(T) == 1 ? L4J_U8 : sizeof(T) == 8 ? L4J_F64 : L4J_F32, {count});
    }
};

int64_t blocks(int64_t n) { return (n + kBlock - 1) / kBlock; }

// One moment: codes and scales, or fp32 values.
struct Moment {
    Values<uint8_t> codes;
    Values<float> scales, floats;

    Moment(int64_t n, bool coded)
        : codes(coded ? n : 0, uint8_t(0)), scales(coded ? blocks(n) : 0, 0.0f), floats(coded ? 0 : n, 0.0f) {}
};
struct Parameter {
    Values<float> value, grad;
    bool coded;
    Moment m, v;

    Parameter(const std::vector<float> &values, bool coded)
        : value(values), grad(value.count, 0.0f), coded(coded), m(value.count, coded), v(value.count, coded) {}
};

using Groups = std::vector<std::vector<Parameter>>;

// Groups of parameters. The settings are those of the golden steps unless a test changes them.
struct Call {
    Groups groups;
    std::deque<std::vector<l4j_tensor>> lists;
    std::vector<l4j_adamw_group> descriptors;
    std::vector<l4j_adamw_hyper> hyper;
    std::vector<double> norms;
    l4j_numeric_status numeric = {};
    l4j_adamw args = {};

    explicit Call(Groups given) : groups(std::move(given)) {
        hyper.assign(groups.size(), {2e-3, 0.9, 0.999, 1e-8, 0.01, 0, 1, 1});
        norms.assign(groups.size(), -1);
        for (size_t g = 0; g < groups.size(); g++) {
            std::vector<l4j_tensor> list[6];
            for (Parameter &p : groups[g]) {
                l4j_tensor none = {};
                list[0].push_back(p.value.tensor());
                list[1].push_back(p.grad.tensor());
                list[2].push_back(p.coded ? p.m.codes.tensor() : p.m.floats.tensor());
                list[3].push_back(p.coded ? p.v.codes.tensor() : p.v.floats.tensor());
                list[4].push_back(p.coded ? p.m.scales.tensor() : none);
                list[5].push_back(p.coded ? p.v.scales.tensor() : none);
            }
            const l4j_tensor *at[6];
            for (int i = 0; i < 6; i++) {
                lists.push_back(std::move(list[i]));
                at[i] = lists.back().data();
            }
            descriptors.push_back({static_cast<int64_t>(groups[g].size()), at[0], at[1], at[2], at[3], &hyper[g],
                                   &norms[g], at[4], at[5]});
        }
        args.struct_size = sizeof args;
        args.flags = L4J_ADAMW_ZERO_GRADS;
        args.group_count = static_cast<int64_t>(groups.size());
        args.groups = descriptors.data();
        args.numeric = &numeric;
    }
    Call(const Call &) = delete;
    l4j_tensor &tensor(size_t group, int list, size_t i) { return lists[group * 6 + static_cast<size_t>(list)][i]; }

    // Everything that a step writes, as bytes.
    std::vector<uint8_t> bytes() const {
        std::vector<uint8_t> all;
        auto add = [&](const void *data, size_t n) {
            if (n) all.insert(all.end(), static_cast<const uint8_t *>(data), static_cast<const uint8_t *>(data) + n);
        };
        for (const std::vector<Parameter> &group : groups) {
            for (const Parameter &p : group) {
                add(p.value.data(), p.value.memory->bytes());
                add(p.grad.data(), p.grad.memory->bytes());
                for (const Moment *moment : {&p.m, &p.v}) {
                    add(moment->codes.data(), moment->codes.memory->bytes());
                    add(moment->scales.data(), moment->scales.memory->bytes());
                    add(moment->floats.data(), moment->floats.memory->bytes());
                }
            }
        }
        add(norms.data(), norms.size() * sizeof(double));
        return all;
    }
};

void run(const Context &context, Call &call) { L4J_ASSERT_OK(L4J_RUN(adamw_step, context.queue(), &call.args)(error)); }

// ---- bitsandbytes' steps ----

struct Golden {
    std::map<std::string, Stored> all = l4j::read_safetensors(l4j::test_data("quant/adamw_8bit.safetensors"));

    const Stored &get(const std::string &name, int step) {
        const Stored &stored = all[name + "." + std::to_string(step)];
        if (stored.bytes.empty()) ADD_FAILURE() << name << " of step " << step << " is missing";
        return stored;
    }
    std::vector<float> floats(const std::string &name, int step) { return get(name, step).floats(); }
    std::vector<uint8_t> codes(const std::string &name, int step) { return get(name, step).bytes; }
    // A parameter with the state that bitsandbytes had after `step`.
    Parameter after(int step) {
        Parameter p(floats("param", step), true);
        if (step == 0) return p;
        p.m.codes = Values<uint8_t>(codes("exp_avg", step));
        p.v.codes = Values<uint8_t>(codes("exp_avg_sq", step));
        p.m.scales = Values<float>(floats("exp_avg_scale", step));
        p.v.scales = Values<float>(floats("exp_avg_sq_scale", step));
        return p;
    }
};

// Ours is the nearest value; theirs is to within the grid of 65536 points from -1 to 1 to which bitsandbytes' CPU code rounds first, which
// is finer than the map but for small values.
void expect_codes(const std::vector<float> &map, const std::vector<double> &exact, const Values<float> &scales,
                  const std::vector<uint8_t> &ours, const std::vector<uint8_t> &theirs) {
    size_t large = 0, different = 0;
    for (size_t i = 0; i < ours.size(); i++) {
        double scale = static_cast<double>(scales.data()[i / kBlock]), x = exact[i] / scale;
        if (scale == 0) continue; // any code stands for 0
        double here = std::fabs(static_cast<double>(map[ours[i]]) - x),
               there = std::fabs(static_cast<double>(map[theirs[i]]) - x);
        double nearest = 2;
        for (float value : map) nearest = std::min(nearest, std::fabs(static_cast<double>(value) - x));
        ASSERT_LE(here, nearest + 1e-6) << "element " << i << ": code " << int(ours[i]) << " for " << x;
        ASSERT_LE(there, nearest + 2.0 / 65535) << "element " << i << ": code " << int(theirs[i]) << " for " << x;
        large += std::fabs(x) > 0.01;
        different += std::fabs(x) > 0.01 && ours[i] != theirs[i];
    }
    EXPECT_GT(large, 500u);
    EXPECT_LT(different, large / 50);
}

TEST(Adamw8bitTest, StepsOfBitsandbytes) {
    Golden golden;
    std::vector<float> map = golden.all["map"].floats(), unsigned_map = golden.all["unsigned_map"].floats();
    ASSERT_EQ(256u, map.size());
    ASSERT_EQ(256u, unsigned_map.size());
    for (int32_t isa : l4j::devices()) {
        SCOPED_TRACE(l4j::tier_name(isa));
        Context context(isa, 2);
        for (int step = 1; step <= 4; step++) {
            SCOPED_TRACE(step);
            Call call(Groups{{golden.after(step - 1)}});
            Parameter &p = call.groups[0][0];
            std::vector<float> grads = golden.floats("grad", step);
            memcpy(p.grad.data(), grads.data(), grads.size() * sizeof(float));
            std::vector<double> m, v; // in fp64, from the state that both begin with
            for (size_t i = 0; i < grads.size(); i++) {
                double g = static_cast<double>(grads[i]);
                m.push_back(0.9 * static_cast<double>(map[p.m.codes.data()[i]] * p.m.scales.data()[i / kBlock]) +
                            0.1 * g);
                v.push_back(0.999 *
                                static_cast<double>(unsigned_map[p.v.codes.data()[i]] * p.v.scales.data()[i / kBlock]) +
                            0.001 * g * g);
            }
            call.hyper[0].step = step;
            run(context, call);
            Parameter theirs = golden.after(step);
            for (int64_t i = 0; i < p.value.count; i++) { // an update is at most a few learning rates
                ASSERT_NEAR(theirs.value.data()[i], p.value.data()[i],
                            1e-6f * std::fabs(theirs.value.data()[i]) + 1e-8f)
                    << i;
            }
            for (int64_t b = 0; b < blocks(p.value.count); b++) {
                ASSERT_NEAR(theirs.m.scales.data()[b], p.m.scales.data()[b], 3e-7f * theirs.m.scales.data()[b]) << b;
                ASSERT_NEAR(theirs.v.scales.data()[b], p.v.scales.data()[b], 3e-7f * theirs.v.scales.data()[b]) << b;
            }
            expect_codes(map, m, p.m.scales, p.m.codes.get(), theirs.m.codes.get());
            expect_codes(unsigned_map, v, p.v.scales, p.v.codes.get(), theirs.v.codes.get());
        }
    }
}

// A gradient equal to what the codes stand for leaves the first moment as it is: bitsandbytes' map, code by code.
TEST(Adamw8bitTest, EveryCodeStandsForTheValueOfTheMap) {
    Golden golden;
    std::vector<float> map = golden.all["map"].floats();
    std::vector<uint8_t> all(256);
    for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint8_t>(i);
    for (int32_t isa : l4j::devices()) {
        SCOPED_TRACE(l4j::tier_name(isa));
        Context context(isa);
        for (float scale : {1.0f, 0x1p-20f}) {
            Parameter p(std::vector<float>(256, 0.0f), true);
            p.m.codes = Values<uint8_t>(all);
            p.v.codes = Values<uint8_t>(all);
            p.m.scales.data()[0] = p.v.scales.data()[0] = scale;
            Call call(Groups{{p}});
            for (size_t i = 0; i < 256; i++) p.grad.data()[i] = map[i] * scale;
            call.hyper[0].beta2 = 0.5;
            run(context, call);
            EXPECT_EQ(all, p.m.codes.get());
            EXPECT_EQ(scale, p.m.scales.data()[0]);
        }
    }
}

// ---- the same bits everywhere ----

Groups parameters() {
    l4j::Random random(5);
    Groups groups(3);
    for (int64_t n :
         {int64_t(1), int64_t(15), kBlock - 1, kBlock, kBlock + 1, int64_t(4096), int64_t(0), int64_t(9000)}) {
        groups[0].emplace_back(random.floats(n), true);
        if (n % 2) groups[0].emplace_back(random.floats(n), false); // both kinds of state in one group
    }
    groups[2].emplace_back(random.floats(12300), true);
    groups[2].emplace_back(random.floats(33), false);
    return groups;
}

void steps(const Context &context, Call &call, int count) {
    for (int step = 1; step <= count; step++) {
        l4j::Random random(static_cast<uint64_t>(100 + step));
        for (std::vector<Parameter> &group : call.groups) {
            for (Parameter &p : group) {
                // Over eight orders of magnitude, so that all parts of the maps are used; zeros too.
                for (int64_t i = 0; i < p.grad.count; i++) {
                    p.grad.data()[i] = random.uniform() * std::pow(10.0f, static_cast<float>(-random.below(9)));
                    if (random.below(20) == 0) p.grad.data()[i] = 0;
                }
            }
        }
        for (l4j_adamw_hyper &h : call.hyper) {
            h.step = step;
            h.max_grad_norm = 2;
        }
        run(context, call);
    }
}

TEST(Adamw8bitTest, SameBitsOnEveryTierAndOnAGpu) {
    Context reference(L4J_ISA_REF);
    Call expected(parameters());
    steps(reference, expected, 5);
    for (int32_t isa : l4j::devices()) {
        for (int threads : {1, 2, 5}) {
            Context context(isa, threads);
            Call call(parameters());
            steps(context, call, 5);
            ASSERT_EQ(expected.bytes(), call.bytes()) << l4j::tier_name(isa) << " with " << threads << " threads";
            if (isa == L4J_ISA_CUDA) break;
        }
    }
}

TEST(Adamw8bitTest, RepeatsBitForBit) {
    for (int32_t isa : {L4J_ISA_AUTO, L4J_ISA_CUDA}) {
        if (isa == L4J_ISA_CUDA && !l4j::has_gpu()) continue;
        Context context(isa, 5);
        Call first(parameters());
        steps(context, first, 2);
        for (int i = 0; i < 30; i++) {
            Call again(parameters());
            steps(context, again, 2);
            ASSERT_EQ(first.bytes(), again.bytes()) << l4j::tier_name(isa) << ", run " << i;
        }
    }
}

// The fp64 oracle keeps scales in F64; one step from the same state.
TEST(Adamw8bitTest, CloseToFp64) {
    Golden golden;
    Call call(Groups{{golden.after(2)}});
    Parameter &p = call.groups[0][0];
    std::vector<float> grads = golden.floats("grad", 3);
    memcpy(p.grad.data(), grads.data(), grads.size() * sizeof(float));
    std::vector<float> value = p.value.get(), m = p.m.scales.get(), v = p.v.scales.get();
    Values<double> value64(std::vector<double>(value.begin(), value.end())),
        grad64(std::vector<double>(grads.begin(), grads.end())), m64(std::vector<double>(m.begin(), m.end())),
        v64(std::vector<double>(v.begin(), v.end()));
    Values<uint8_t> m_codes(p.m.codes.get()), v_codes(p.v.codes.get());
    l4j_tensor tensors[6] = {value64.tensor(), grad64.tensor(), m_codes.tensor(),
                             v_codes.tensor(), m64.tensor(),    v64.tensor()};
    call.hyper[0].step = 3;
    l4j_adamw_group group = {1,       &tensors[0], &tensors[1], &tensors[2], &tensors[3], call.hyper.data(),
                             nullptr, &tensors[4], &tensors[5]};
    l4j_adamw args = call.args;
    args.groups = &group;
    Context oracle(L4J_ISA_REF64), context(L4J_ISA_AUTO);
    L4J_ASSERT_OK(L4J_RUN(adamw_step, oracle.queue(), &args)(error));
    run(context, call);
    std::vector<double> ours;
    for (float x : p.value.get()) ours.push_back(static_cast<double>(x));
    EXPECT_LT(l4j::relative_error(ours, value64.get()), 1e-7);
    size_t different = 0;
    for (int64_t i = 0; i < p.value.count; i++) different += p.m.codes.data()[i] != m_codes.data()[i];
    EXPECT_LT(different, 5u); // a value between two codes may fall to either side
}

// ---- what goes wrong ----

TEST(Adamw8bitTest, ANonFiniteGradientChangesNothing) {
    for (int32_t isa : l4j::devices()) {
        for (float bad : {NAN, INFINITY}) {
            Context context(isa, 2);
            Call call(parameters());
            steps(context, call, 2);
            Parameter &p = call.groups[2][0];
            std::vector<uint8_t> m = p.m.codes.get(), v = p.v.codes.get();
            std::vector<float> value = p.value.get(), scales = p.m.scales.get();
            p.grad.data()[12299] = bad;
            call.hyper[2].step = 3;
            run(context, call);
            EXPECT_EQ(L4J_OP_ADAMW, call.numeric.operation);
            EXPECT_EQ(3, call.numeric.step);
            EXPECT_EQ(2, call.numeric.group);
            EXPECT_EQ(0, call.numeric.tensor);
            EXPECT_EQ(m, p.m.codes.get());
            EXPECT_EQ(v, p.v.codes.get());
            EXPECT_EQ(scales, p.m.scales.get());
            EXPECT_EQ(value, p.value.get());
            EXPECT_EQ(0.0f, p.grad.data()[12299]);
        }
    }
}

TEST(Adamw8bitTest, Messages) {
    Context context(L4J_ISA_AUTO);
    auto expect = [&](const std::function<void(Call &)> &spoil, const std::string &message) {
        Call call(Groups{{Parameter(std::vector<float>(300, 1.0f), true), Parameter({1.0f, 2.0f}, false)}});
        spoil(call);
        l4j_error error = {};
        EXPECT_EQ(L4J_EINVAL, L4J_RUN(adamw_step, context.queue(), &call.args)(&error));
        EXPECT_EQ("adamw_step: " + message, error.message);
    };
    expect([](Call &c) { c.descriptors[0].exp_avg_scales = nullptr; },
           "groups[0].exp_avg_scales is NULL, but exp_avgs[0] is U8");
    expect([](Call &c) { c.descriptors[0].exp_avg_sq_scales = nullptr; },
           "groups[0].exp_avg_sq_scales is NULL, but exp_avg_sqs[0] is U8");
    expect([](Call &c) { c.tensor(0, 4, 0).shape[0] = 1; }, "groups[0].exp_avg_scales[0] is F32 [1], expected F32 [2]");
    expect([](Call &c) { c.tensor(0, 5, 0).data = nullptr; }, "groups[0].exp_avg_sq_scales[0].data is NULL");
    expect([](Call &c) { c.tensor(0, 3, 0).dtype = L4J_I8; },
           "groups[0].exp_avg_sqs[0] is I8 [300], expected U8 [300]");
    expect([](Call &c) { c.tensor(0, 2, 0).dtype = L4J_I8; }, "groups[0].exp_avgs[0] is I8 [300], expected F32 [300]");
    expect([](Call &c) { c.tensor(0, 2, 1) = c.tensor(0, 0, 1), c.tensor(0, 4, 1) = c.tensor(0, 0, 1); },
           "groups[0].exp_avg_scales[1] has scales, but exp_avgs[1] is not U8");
}

} // namespace
