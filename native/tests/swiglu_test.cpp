#include "tier_check.h"

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Operand;

struct Call {
    Call(int32_t isa, int64_t M, int64_t N, int64_t pad = 0, Guarded::Side side = Guarded::kAfter)
        : gate(isa, {M, N}, pad, side), up(isa, {M, N}, pad, side), out(isa, {M, N}, pad, side),
          dout(isa, {M, N}, pad, side), dgate(isa, {M, N}, pad, side), dup(isa, {M, N}, pad, side) {
        l4j::Random random(1);
        gate.fill(random.floats(M * N, 8));
        up.fill(random.floats(M * N, 2));
        dout.fill(random.floats(M * N));
        bind();
    }
    Call(const Call &) = delete;
    void bind() {
        args = {};
        args.struct_size = sizeof args;
        args.gate = gate.get();
        args.up = up.get();
        args.out = out.get();
        args.dout = dout.get();
        args.dgate = dgate.get();
        args.dup = dup.get();
    }
    void forward(const Context &context) { L4J_ASSERT_OK(L4J_RUN(swiglu_forward, context.queue(), &args)(error)); }
    void backward(const Context &context) { L4J_ASSERT_OK(L4J_RUN(swiglu_backward, context.queue(), &args)(error)); }
    Operand gate, up, out, dout, dgate, dup;
    l4j_swiglu args;
};

TEST(SwigluTest, EdgesOfBothDimensions) {
    for (int64_t N : {1, 2, 15, 16, 17, 31, 33, 64, 100, 511, 512, 513, 576, 1536}) {
        for (int64_t M : {1, 7}) {
            for (auto [pad, side] : {std::pair<int64_t, Guarded::Side>{0, Guarded::kAfter}, {3, Guarded::kBefore}}) {
                SCOPED_TRACE("M=" + std::to_string(M) + " N=" + std::to_string(N));
                l4j::check_tiers(
                    [&, pad = pad, side = side](const Context &context, int32_t isa) -> l4j::Outputs {
                        Call call(isa, M, N, pad, side);
                        call.forward(context);
                        call.backward(context);
                        return {{"out", call.out}, {"dgate", call.dgate}, {"dup", call.dup}};
                    },
                    1e-6, {1, 5});
            }
        }
    }
}

// The sigmoid at its ends: exp overflows to +inf or underflows to 0 and the results stay finite.
TEST(SwigluTest, LargeGates) {
    const float gates[] = {0, -0.0f, 1e-30f, 87, 88.8f, 100, 1e30f, -87, -88.8f, -100, -1e30f, 3e38f, -3e38f};
    l4j::check_tiers(
        [&](const Context &context, int32_t isa) -> l4j::Outputs {
            Call call(isa, 1, 13);
            for (int64_t n = 0; n < 13; n++) {
                float gate = l4j::rounded(gates[n]); // in F16 some are infinite, and −inf · 0 is NaN, as in PyTorch
                call.gate.set(n, std::isfinite(gate) ? gate : std::copysign(65504.0f, gate));
                call.up.set(n, 1);
            }
            call.forward(context);
            call.backward(context);
            for (int64_t n = 0; n < 13; n++) EXPECT_TRUE(std::isfinite(call.out.at(n))) << gates[n];
            return {{"out", call.out}, {"dgate", call.dgate}, {"dup", call.dup}};
        },
        1e-6);
}

TEST(SwigluTest, InPlaceAndStrided) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call plain(isa, 5, 530);
        plain.forward(context);
        plain.backward(context);
        for (int choice = 0; choice < 5; choice++) {
            Call call(isa, 5, 530);
            if (choice == 4) {
                for (Operand *x : {&call.gate, &call.up, &call.dout}) *x = l4j::transposed_layout(isa, *x);
            } else {
                call.dgate = choice & 1 ? call.gate : call.dout;
                call.dup = choice & 1 ? (choice & 2 ? call.dout : call.up) : call.up;
            }
            call.bind();
            if (choice == 4) call.forward(context);
            call.backward(context);
            if (choice == 4) {
                EXPECT_TRUE(l4j::same_bits(call.out.floats(), plain.out.floats()));
            }
            EXPECT_TRUE(l4j::same_bits(call.dgate.floats(), plain.dgate.floats())) << choice;
            EXPECT_TRUE(l4j::same_bits(call.dup.floats(), plain.dup.floats())) << choice;
        }
        for (bool on_gate : {true, false}) {
            Call call(isa, 5, 530);
            call.out = on_gate ? call.gate : call.up;
            call.bind();
            call.forward(context);
            EXPECT_TRUE(l4j::same_bits(call.out.floats(), plain.out.floats()));
        }
    }
}

TEST(SwigluTest, FiniteDifferences) {
    Context context(L4J_ISA_REF64);
    Call call(L4J_ISA_REF64, 3, 17);
    call.backward(context);
    auto forward = [&] { call.forward(context); };
    l4j::check_gradient(call.gate, call.dgate, call.out, call.dout, forward);
    l4j::check_gradient(call.up, call.dup, call.out, call.dout, forward);
}

TEST(SwigluTest, RepeatsBitForBit) {
    Context context(L4J_ISA_AUTO, 5);
    Call first(L4J_ISA_AUTO, 31, 200);
    first.forward(context);
    first.backward(context);
    for (int run = 0; run < 100; run++) {
        Call again(L4J_ISA_AUTO, 31, 200);
        again.forward(context);
        again.backward(context);
        ASSERT_TRUE(l4j::same_bits(again.out.floats(), first.out.floats()));
        ASSERT_TRUE(l4j::same_bits(again.dgate.floats(), first.dgate.floats()));
        ASSERT_TRUE(l4j::same_bits(again.dup.floats(), first.dup.floats()));
    }
}

TEST(SwigluTest, NothingToDo) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        for (auto [M, N] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}}) {
            Call call(isa, M, N);
            call.forward(context);
            call.backward(context);
        }
    }
}

void expect_message(const std::function<void(Call &)> &spoil, const std::string &message, bool backward = false) {
    Context context(L4J_ISA_AUTO);
    Call call(L4J_ISA_AUTO, 3, 4);
    spoil(call);
    l4j_error error = {};
    EXPECT_EQ(L4J_EINVAL, backward ? L4J_RUN(swiglu_backward, context.queue(), &call.args)(&error)
                                   : L4J_RUN(swiglu_forward, context.queue(), &call.args)(&error));
    EXPECT_EQ(message, error.message);
}

TEST(SwigluTest, Messages) {
    std::string f = "swiglu_forward: ", b = "swiglu_backward: ";
    expect_message([](Call &c) { c.args.reserved0 = 1; }, f + "reserved0 is not zero");
    expect_message([](Call &c) { c.args.reserved[0] = 1; }, f + "reserved[0] is not zero");
    expect_message([](Call &c) { c.args.gate = nullptr; }, f + "gate is NULL");
    expect_message([](Call &c) { c.up.mutable_tensor().shape[1] = 5; }, f + "up is F32 [3, 5], expected F32 [3, 4]");
    expect_message([](Call &c) { c.args.out = nullptr; }, f + "out is NULL");
    expect_message([](Call &c) { c.args.dout = nullptr; }, b + "dout is NULL", true);
    expect_message([](Call &c) { c.args.dup = nullptr; }, b + "dup is NULL", true);
    expect_message([](Call &c) { c.dgate.mutable_tensor().dtype = L4J_BF16; },
                   b + "dgate is BF16 [3, 4], expected F32 [3, 4]", true);
    expect_message([](Call &c) { c.args.dup = c.args.dgate; },
                   b + "dgate and dup are the same memory, expected two tensors", true);
}

} // namespace
