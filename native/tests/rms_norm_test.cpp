#include "tier_check.h"

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Operand;

struct Spec {
    int64_t M = 3, N = 64;
    bool residual = true, h = true, dweight = true, dresidual = true, in_place = false, strided = false;
    int32_t weight = L4J_F32;
    int64_t pad = 0;
    Guarded::Side side = Guarded::kAfter;
};

struct Call {
    Call(int32_t isa, const Spec &s, uint64_t seed = 1)
        : x(isa, {s.M, s.N}, s.pad, s.side), residual(isa, {s.M, s.N}, s.pad, s.side),
          h(isa, {s.M, s.N}, s.pad, s.side), y(isa, {s.M, s.N}, s.pad, s.side), rstd(isa, {s.M}, 0, s.side),
          dy(isa, {s.M, s.N}, s.pad, s.side), dresidual(isa, {s.M, s.N}, s.pad, s.side),
          dx(isa, {s.M, s.N}, s.pad, s.side), dweight(isa, {s.N}, 0, s.side),
          stored(static_cast<size_t>(s.N) * 4, s.side) {
        l4j::Random random(seed);
        x.fill(random.floats(x.size(), 3));
        residual.fill(random.floats(x.size()));
        dy.fill(random.floats(x.size()));
        dresidual.fill(random.floats(x.size()));
        dweight.fill(random.floats(s.N));
        for (int64_t n = 0; n < s.N; n++) {
            uint32_t u = static_cast<uint32_t>(l4j::to_bf16(1 + 0.5f * random.uniform())) << 16;
            float w; // exact in every dtype
            memcpy(&w, &u, 4);
            if (s.weight == L4J_F32) stored.as<float>()[n] = w;
            if (s.weight == L4J_F16) stored.as<uint16_t>()[n] = l4j::to_f16(w);
            if (s.weight == L4J_BF16) stored.as<uint16_t>()[n] = l4j::to_bf16(w);
        }
        weight = l4j::tensor(stored.as(), s.weight, {s.N});
        if (s.strided) {
            for (Operand *t : {&x, &residual, &dy, &dresidual}) *t = l4j::transposed_layout(isa, *t);
        }
        if (s.in_place) {
            h = residual;
            y = x;
            dx = dy;
        }
        args.struct_size = sizeof args;
        args.eps = 1e-5f;
        args.x = x.get();
        args.residual = s.residual ? residual.get() : nullptr;
        args.weight = &weight;
        args.h = s.h ? h.get() : nullptr;
        args.y = y.get();
        args.rstd = rstd.get();
        args.dy = dy.get();
        args.dresidual = s.dresidual ? dresidual.get() : nullptr;
        args.dx = dx.get();
        args.dweight = s.dweight ? dweight.get() : nullptr;
    }
    Call(const Call &) = delete;
    void forward(const Context &context) { L4J_ASSERT_OK(L4J_RUN(rms_norm_forward, context.queue(), &args)(error)); }
    // A GPU takes rstd from h as 16 bits hold it, the oracle from h before it is rounded. In backward of N = 1 next to nothing is left
    // of dy, and an rstd that does not fit h would be most of it: so the oracle too has to start from the stored h.
    void forward_from_stored_h(const Context &context) {
        l4j_rms_norm first = args;
        args.x = h.get();
        args.residual = args.h = nullptr;
        forward(context);
        args.x = first.x;
        args.residual = first.residual;
        args.h = first.h;
    }
    void backward(const Context &context) { L4J_ASSERT_OK(L4J_RUN(rms_norm_backward, context.queue(), &args)(error)); }
    Operand x, residual, h, y, rstd, dy, dresidual, dx, dweight;
    Guarded stored;
    l4j_tensor weight;
    l4j_rms_norm args = {};
};

l4j::Outputs compute(const Context &context, int32_t isa, const Spec &spec) {
    Call call(isa, spec);
    call.forward(context);
    if (isa == L4J_ISA_REF64 && l4j::oracle_rounds() && spec.residual) call.forward_from_stored_h(context);
    l4j::Outputs outputs = {{"y", call.y}, {"rstd", call.rstd}};
    if (spec.h) outputs.push_back({"h", call.h});
    if (!spec.h) call.args.h = call.x.get();
    if (!(spec.in_place && !spec.residual)) call.backward(context);
    outputs.push_back({"dx", call.dx});
    if (spec.dweight) outputs.push_back({"dweight", call.dweight});
    return outputs;
}

void check(const Spec &spec, const std::vector<int> &threads = {1, 2, 5}) {
    SCOPED_TRACE("M=" + std::to_string(spec.M) + " N=" + std::to_string(spec.N));
    // Tolerance: a few roundings of fp32 (6e-8 each), with room for cancellation in dx.
    l4j::check_tiers([&](const Context &context, int32_t isa) { return compute(context, isa, spec); }, 1e-6, threads);
}

TEST(RmsNormTest, EdgesOfBothDimensions) {
    for (int64_t N : {1, 2, 15, 16, 17, 31, 33, 64, 100, 511, 512, 513, 576, 1100}) {
        for (int64_t M : {1, 7}) {
            Spec spec;
            spec.N = N;
            spec.M = M;
            check(spec, {1, 5});
            spec.pad = 5;
            spec.side = Guarded::kBefore;
            check(spec, {2});
        }
    }
}

TEST(RmsNormTest, EveryCombinationOfOptionalTensors) {
    for (int choice = 0; choice < 16; choice++) {
        Spec spec;
        spec.N = 70;
        spec.residual = choice & 1;
        spec.h = spec.residual || (choice & 2);
        spec.dweight = choice & 4;
        spec.dresidual = choice & 8;
        check(spec);
    }
}

TEST(RmsNormTest, WeightsOfEveryDtype) {
    for (int32_t dtype : {L4J_F32, L4J_F16, L4J_BF16}) {
        for (int64_t N : {5, 48, 576, 1030}) {
            Spec spec;
            spec.weight = dtype;
            spec.N = N;
            check(spec);
        }
    }
}

TEST(RmsNormTest, InPlaceAndStrided) {
    Spec spec;
    spec.M = 9;
    spec.N = 600;
    for (int32_t isa : l4j::tiers()) {
        Context here(isa, 2);
        l4j::Outputs plain = compute(here, isa, spec);
        for (bool in_place : {true, false}) {
            Spec other = spec;
            other.in_place = in_place;
            other.strided = !in_place;
            l4j::Outputs got = compute(here, isa, other);
            for (size_t i = 0; i < plain.size(); i++) {
                EXPECT_TRUE(l4j::same_bits(got[i].second.floats(), plain[i].second.floats())) << plain[i].first;
            }
        }
    }
}

TEST(RmsNormTest, RowsDoNotDependOnTheBatch) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 3);
        Spec spec;
        spec.M = 40;
        spec.N = 100;
        Call all(isa, spec);
        all.forward(context);
        for (int64_t m : {0, 13, 39}) {
            Spec one = spec;
            one.M = 1;
            Call row(isa, one);
            for (int64_t n = 0; n < 100; n++) {
                row.x.set(n, all.x.at(m * 100 + n));
                row.residual.set(n, all.residual.at(m * 100 + n));
            }
            memcpy(row.stored.as(), all.stored.as(), all.stored.bytes());
            row.forward(context);
            for (int64_t n = 0; n < 100; n++) ASSERT_EQ(all.y.at(m * 100 + n), row.y.at(n));
        }
    }
}

TEST(RmsNormTest, FiniteDifferences) {
    Spec spec;
    spec.M = 4;
    spec.N = 19;
    spec.dresidual = false;
    Context context(L4J_ISA_REF64);
    Call call(L4J_ISA_REF64, spec);
    call.dweight.fill(0.0);
    call.forward(context);
    call.backward(context);
    auto forward = [&] { call.forward(context); };
    l4j::check_gradient(call.x, call.dx, call.y, call.dy, forward);
    l4j::check_gradient(call.residual, call.dx, call.y, call.dy, forward);
    Operand weight(L4J_ISA_REF64, {19});
    for (int64_t n = 0; n < 19; n++) weight.set(n, call.stored.as<float>()[n]);
    call.args.weight = weight.get();
    l4j::check_gradient(weight, call.dweight, call.y, call.dy, forward);
}

TEST(RmsNormTest, RepeatsBitForBit) {
    Context context(L4J_ISA_AUTO, 5);
    Spec spec;
    spec.M = 33;
    spec.N = 200;
    l4j::Outputs first = compute(context, L4J_ISA_AUTO, spec);
    for (int run = 0; run < 100; run++) {
        l4j::Outputs again = compute(context, L4J_ISA_AUTO, spec);
        for (size_t i = 0; i < first.size(); i++)
            ASSERT_TRUE(l4j::same_bits(again[i].second.floats(), first[i].second.floats())) << first[i].first;
    }
}

TEST(RmsNormTest, NoRows) {
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Spec spec;
        spec.M = 0;
        Call call(isa, spec);
        call.forward(context);
        call.backward(context);
    }
}

void expect_message(const std::function<void(Call &)> &spoil, l4j_status status, const std::string &message,
                    bool backward = false) {
    Context context(L4J_ISA_AUTO);
    Call call(L4J_ISA_AUTO, Spec());
    spoil(call);
    l4j_error error = {};
    EXPECT_EQ(status, backward ? L4J_RUN(rms_norm_backward, context.queue(), &call.args)(&error)
                               : L4J_RUN(rms_norm_forward, context.queue(), &call.args)(&error));
    EXPECT_EQ(message, error.message);
}

TEST(RmsNormTest, Messages) {
    std::string f = "rms_norm_forward: ", b = "rms_norm_backward: ";
    expect_message([](Call &c) { c.args.reserved[3] = 1; }, L4J_EINVAL, f + "reserved[3] is not zero");
    expect_message([](Call &c) { c.args.x = nullptr; }, L4J_EINVAL, f + "x is NULL");
    expect_message([](Call &c) { c.x.mutable_tensor().shape[1] = 0; }, L4J_EINVAL,
                   f + "x has rows of length 0, expected 1 or more");
    expect_message([](Call &c) { c.x.mutable_tensor().dtype = L4J_F64; }, L4J_EINVAL,
                   f + "x is F64 [3, 64], expected F32 [any, any]");
    expect_message([](Call &c) { c.args.eps = NAN; }, L4J_EINVAL, f + "eps is nan, expected 0 to 1");
    expect_message([](Call &c) { c.weight.shape[0] = 63; }, L4J_EINVAL,
                   f + "weight is F32 [63], expected F32, F16 or BF16 [64]");
    expect_message([](Call &c) { c.weight.dtype = L4J_I8; }, L4J_EINVAL,
                   f + "weight is I8 [64], expected F32, F16 or BF16 [64]");
    expect_message([](Call &c) { c.args.h = nullptr; }, L4J_EINVAL,
                   f + "h is NULL, expected a tensor because there is a residual");
    expect_message([](Call &c) { c.residual.mutable_tensor().shape[0] = 2; }, L4J_EINVAL,
                   f + "residual is F32 [2, 64], expected F32 [3, 64]");
    expect_message(
        [](Call &c) { c.y.mutable_tensor().stride[0] = 63; }, L4J_EINVAL,
        f + "y is F32 [3, 64] with strides [63, 1, 0, 0]; an output needs an innermost stride of 1 and rows that "
            "do not overlap");
    expect_message([](Call &c) { c.args.y = nullptr; }, L4J_EINVAL, f + "y is NULL");
    expect_message([](Call &c) { c.rstd.mutable_tensor().shape[0] = 4; }, L4J_EINVAL,
                   f + "rstd is F32 [4], expected F32 [3]");
    expect_message([](Call &c) { c.x.mutable_tensor().data = static_cast<char *>(c.x.get()->data) + 2; }, L4J_EALIGN,
                   f + "x.data is not aligned to its element size of 4 bytes");
    expect_message([](Call &c) { c.args.h = nullptr; }, L4J_EINVAL, b + "h is NULL", true);
    expect_message([](Call &c) { c.args.dy = nullptr; }, L4J_EINVAL, b + "dy is NULL", true);
    expect_message([](Call &c) { c.args.dx = nullptr; }, L4J_EINVAL, b + "dx is NULL", true);
    expect_message([](Call &c) { c.args.rstd = nullptr; }, L4J_EINVAL, b + "rstd is NULL", true);
    expect_message([](Call &c) { c.dresidual.mutable_tensor().shape[1] = 65; }, L4J_EINVAL,
                   b + "dresidual is F32 [3, 65], expected F32 [3, 64]", true);
    expect_message([](Call &c) { c.dweight.mutable_tensor().shape[0] = 3; }, L4J_EINVAL,
                   b + "dweight is F32 [3], expected F32 [64]", true);
}

} // namespace
