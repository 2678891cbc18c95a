#include "attention_case.h"

#include <functional>

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Operand;
using l4j::attention::bits;
using l4j::attention::Call;
using l4j::attention::check;
using l4j::attention::Problem;

TEST(AttentionTest, HeadDimensions) {
    for (int64_t depth : {1, 7, 8, 16, 20, 31, 64, 80, 96, 128, 256}) {
        Problem p;
        p.queries = p.keys = {19, 5};
        p.q_heads = 2;
        p.kv_heads = 1;
        p.depth = depth;
        check(p);
        p.side = Guarded::kBefore;
        p.pad = 3;
        check(p, {2});
    }
}

TEST(AttentionTest, LengthsAroundTiles) {
    for (int32_t n : {1, 2, 5, 6, 7, 11, 12, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 130}) {
        for (bool causal : {true, false}) {
            Problem p;
            p.queries = p.keys = {n};
            p.causal = causal;
            check(p, {1, 5});
        }
    }
}

TEST(AttentionTest, GroupedQueries) {
    for (int64_t group : {1, 3, 4}) {
        Problem p;
        p.queries = p.keys = {40, 70};
        p.kv_heads = 2;
        p.q_heads = 2 * group;
        p.depth = 16;
        check(p);
    }
}

// Many sequences, so that threads take whole units; some are empty.
TEST(AttentionTest, RaggedSequences) {
    Problem p;
    p.queries = p.keys = {1, 30, 2, 0, 17, 64, 3, 90, 5, 1, 0, 33};
    p.q_heads = 4;
    p.kv_heads = 2;
    p.depth = 16;
    check(p, {1, 2, 3, 5});
    p.queries = p.keys = {300, 1, 257};
    p.q_heads = p.kv_heads = 1;
    p.depth = 8;
    check(p, {1, 2});
}

// Fewer queries than keys: decoding and chunked prefill, and plain cross-attention without the causal limit.
TEST(AttentionTest, MoreKeysThanQueries) {
    for (bool causal : {true, false}) {
        Problem p;
        p.queries = {1, 1, 20, 0, 64};
        p.keys = {1, 200, 75, 40, 65};
        p.q_heads = 3;
        p.kv_heads = 1;
        p.depth = 24;
        p.causal = causal;
        check(p);
    }
}

// A long context makes blocks of few rows; several blocks for one head.
TEST(AttentionTest, LongContext) {
    Problem p;
    p.queries = {40};
    p.keys = {9000};
    p.depth = 4;
    check(p, {1, 2});
}

// A head of a sequence computed alone, in any batch, or token by token from a cache: the same bits.
TEST(AttentionTest, DecodingEqualsRecomputation) {
    Problem whole;
    whole.queries = whole.keys = {150};
    whole.q_heads = 6;
    whole.kv_heads = 2;
    whole.depth = 32;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call full(isa, whole, 3);
        full.run(context);
        int64_t width = whole.q_heads * whole.depth;
        for (int64_t i : {0, 1, 15, 16, 63, 64, 65, 100, 149}) {
            Call step(isa, whole, 3);
            std::vector<int32_t> offsets = {static_cast<int32_t>(i), static_cast<int32_t>(i + 1)};
            std::vector<int32_t> lengths = {static_cast<int32_t>(i + 1)};
            step.args.q_offsets = offsets.data();
            step.args.kv_lengths = lengths.data();
            L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &step.args)(error));
            for (int64_t j = 0; j < width; j++) ASSERT_EQ(full.o.at(i * width + j), step.o.at(i * width + j)) << i;
            for (int64_t h = 0; h < whole.q_heads; h++)
                ASSERT_EQ(full.lse.at(i * whole.q_heads + h), step.lse.at(i * whole.q_heads + h)) << i;
        }
    }
}

// What lies behind a query's limit has no influence, not even a NaN.
TEST(AttentionTest, LaterKeysHaveNoInfluence) {
    Problem p;
    p.queries = p.keys = {70};
    p.depth = 16;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call clean(isa, p, 5), poisoned(isa, p, 5);
        for (int64_t j = 41; j < 70; j++) {
            for (int64_t d = 0; d < 16; d++) {
                poisoned.k.set((1 + j) * 16 + d, NAN);
                poisoned.v.set((1 + j) * 16 + d, INFINITY);
            }
        }
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &clean.args)(error));
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &poisoned.args)(error));
        for (int64_t i = 0; i < 41 * 16; i++) ASSERT_EQ(clean.o.at(i), poisoned.o.at(i)) << i;
        for (int64_t i = 42 * 16; i < 70 * 16; i++) ASSERT_TRUE(std::isnan(poisoned.o.at(i))) << i;
    }
}

// Strides of any kind on inputs; heads between tokens on outputs ([H, M, D] memory).
TEST(AttentionTest, AnyLayout) {
    Problem p;
    p.queries = p.keys = {37};
    p.q_heads = 4;
    p.kv_heads = 2;
    p.depth = 20;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call plain(isa, p, 9), strided(isa, p, 9);
        auto transposed = [&](Operand &x) { // [D][H][M] memory
            int64_t M = x.get()->shape[0], H = x.get()->shape[1], D = x.get()->shape[2];
            Operand y(isa, {D, H, M});
            for (int64_t m = 0; m < M; m++) {
                for (int64_t h = 0; h < H; h++) {
                    for (int64_t d = 0; d < D; d++) y.set((d * H + h) * M + m, x.at((m * H + h) * D + d));
                }
            }
            std::swap(y.mutable_tensor().shape[0], y.mutable_tensor().shape[2]);
            std::swap(y.mutable_tensor().stride[0], y.mutable_tensor().stride[2]);
            x = y;
        };
        auto heads_first = [](Operand &x) {
            x.mutable_tensor().stride[1] = x.get()->shape[0] * x.get()->shape[2];
            x.mutable_tensor().stride[0] = x.get()->shape[2];
        };
        for (Operand *x : {&strided.q, &strided.k, &strided.v, &strided.d_o}) transposed(*x);
        for (Operand *x : {&strided.o, &strided.dq, &strided.dk, &strided.dv}) heads_first(*x);
        plain.run(context);
        strided.run(context);
        for (size_t i = 0; i < plain.outputs().size(); i++) {
            EXPECT_TRUE(l4j::same_bits(bits(*strided.outputs()[i].second, p), bits(*plain.outputs()[i].second, p)))
                << plain.outputs()[i].first << " on " << l4j::tier_name(isa);
        }
    }
}

TEST(AttentionTest, RepeatsBitForBit) {
    Problem p;
    p.queries = p.keys = {33, 64};
    p.q_heads = 3;
    p.depth = 16;
    Context context(L4J_ISA_AUTO, 5);
    Call first(L4J_ISA_AUTO, p, 2);
    first.run(context);
    for (int run = 0; run < 100; run++) {
        Call again(L4J_ISA_AUTO, p, 2);
        again.run(context);
        for (size_t i = 0; i < first.outputs().size(); i++)
            ASSERT_TRUE(l4j::same_bits(bits(*again.outputs()[i].second, p), bits(*first.outputs()[i].second, p)))
                << run;
    }
}

// Derivatives of L = Σ do ⊙ o by central differences in fp64.
TEST(AttentionTest, FiniteDifferences) {
    for (auto [causal, window] : {std::pair{true, 0}, {false, 0}, {true, 1}, {true, 4}}) {
        Problem p;
        p.queries = {5, 3};
        p.keys = {5, 7};
        p.q_heads = 4;
        p.kv_heads = 2;
        p.depth = 3;
        p.causal = causal;
        p.window = window;
        Context context(L4J_ISA_REF64);
        Call call(L4J_ISA_REF64, p, 11);
        call.run(context);
        auto loss = [&] {
            l4j_error error = {};
            EXPECT_EQ(L4J_OK, L4J_RUN(attention_forward, context.queue(), &call.args)(&error)) << error.message;
            double sum = 0;
            for (int64_t i = 0; i < call.o.size(); i++) sum += call.o.at(i) * call.d_o.at(i);
            return sum;
        };
        struct Pair {
            Operand *x;
            const Operand *gradient;
        };
        for (Pair pair : {Pair{&call.q, &call.dq}, Pair{&call.k, &call.dk}, Pair{&call.v, &call.dv}}) {
            for (int64_t i = 0; i < pair.x->size(); i++) {
                double x = pair.x->at(i), step = 1e-5;
                if (std::isnan(x)) continue;
                pair.x->set(i, x + step);
                double above = loss();
                pair.x->set(i, x - step);
                double below = loss();
                pair.x->set(i, x);
                ASSERT_NEAR((above - below) / (2 * step), pair.gradient->at(i), 1e-8) << i;
            }
        }
    }
}

// Without lse only o is written.
TEST(AttentionTest, LogSumExpIsOptional) {
    Problem p;
    p.queries = p.keys = {20};
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        Call with(isa, p, 1), without(isa, p, 1);
        without.args.lse = nullptr;
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &with.args)(error));
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &without.args)(error));
        EXPECT_TRUE(l4j::same_bits(with.o.floats(), without.o.floats()));
    }
}

TEST(AttentionTest, NothingToDo) {
    Problem p;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call call(isa, p, 1);
        call.run(context);
    }
}

void expect_message(const std::function<void(Call &)> &spoil, l4j_status status, const std::string &message,
                    bool backward = false) {
    Problem p;
    p.queries = p.keys = {4, 3};
    p.q_heads = 4;
    p.kv_heads = 2;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        Call call(isa, p, 1);
        spoil(call);
        l4j_error error = {};
        l4j_status found = backward ? L4J_RUN(attention_backward, context.queue(), &call.args)(&error)
                                    : L4J_RUN(attention_forward, context.queue(), &call.args)(&error);
        EXPECT_EQ(status, found) << message;
        EXPECT_EQ(message, error.message);
        for (double x : call.o.values()) ASSERT_TRUE(std::isnan(x)) << "written in spite of: " << message;
    }
}

TEST(AttentionTest, Messages) {
    std::string f = "attention_forward: ";
    expect_message([](Call &c) { c.args.flags = 8; }, L4J_EINVAL,
                   f + "flags are 0x8, expected L4J_ATTENTION_CAUSAL or 0");
    expect_message([](Call &c) { c.args.scale = INFINITY; }, L4J_EINVAL, f + "scale is inf, expected a finite value");
    expect_message([](Call &c) { c.args.softcap = 30; }, L4J_ENOTSUP,
                   f + "softcap is 30; soft-capped scores are not supported yet, expected 0");
    expect_message([](Call &c) { c.args.window = -1; }, L4J_EINVAL,
                   f + "window is -1, expected 1 or more, or 0 for none");
    expect_message([](Call &c) { c.args.window = 512, c.args.flags = 0; }, L4J_EINVAL,
                   f + "window is 512 without L4J_ATTENTION_CAUSAL, expected 0");
    expect_message([](Call &c) { c.args.reserved[1] = 1; }, L4J_EINVAL, f + "reserved[1] is not zero");
    expect_message([](Call &c) { c.args.sequences = -1; }, L4J_EINVAL,
                   f + "sequences, max_q_length and max_kv_length are -1, 4 and 4, expected 0 to 2147483647");
    expect_message(
        [](Call &c) { c.args.max_kv_length = int64_t{1} << 61; }, L4J_EINVAL,
        f + "sequences, max_q_length and max_kv_length are 2, 4 and 2305843009213693952, expected 0 to 2147483647");
    expect_message([](Call &c) { c.args.q_offsets = nullptr; }, L4J_EINVAL, f + "q_offsets is NULL");
    expect_message([](Call &c) { c.args.kv_starts = nullptr; }, L4J_EINVAL, f + "kv_starts is NULL");
    expect_message([](Call &c) { c.args.kv_lengths = nullptr; }, L4J_EINVAL, f + "kv_lengths is NULL");
    expect_message([](Call &c) { c.args.q = nullptr; }, L4J_EINVAL, f + "q is NULL");
    expect_message([](Call &c) { c.q.mutable_tensor().shape[2] = 300; }, L4J_ENOTSUP,
                   f + "q has a head dimension of 300, expected 1 to 256");
    expect_message([](Call &c) { c.q.mutable_tensor().shape[1] = 3; }, L4J_EINVAL,
                   f + "q has 3 heads and k has 2, expected a multiple of k's for q");
    expect_message([](Call &c) { c.k.mutable_tensor().shape[2] = 6; }, L4J_EINVAL,
                   f + "k is F32 [10, 2, 6], expected F32 [any, any, 8] because q has that head dimension");
    expect_message([](Call &c) { c.v.mutable_tensor().shape[0] = 9; }, L4J_EINVAL,
                   f + "v is F32 [9, 2, 8], expected F32 [10, 2, 8] because k has that shape");
    expect_message([](Call &c) { c.o.mutable_tensor().dtype = L4J_F16; }, L4J_EINVAL,
                   f + "o is F16 [7, 4, 8], expected F32 [7, 4, 8] because q has that shape");
    expect_message([](Call &c) { c.lse.mutable_tensor().shape[1] = 3; }, L4J_EINVAL,
                   f + "lse is F32 [7, 3], expected F32 [7, 4]");
    expect_message(
        [](Call &c) {
            c.offsets = {0, 5, 4}, c.args.q_offsets = c.offsets.data();
        },
        L4J_EINVAL, f + "sequence 0 has 5 queries and 4 keys, expected at most max_q_length = 4 and max_kv_length = 4");
    expect_message([](Call &c) { c.offsets[0] = 1, c.offsets[1] = 0; }, L4J_EINVAL,
                   f + "q_offsets[0..1] are 1 and 0, expected ascending within 0 to 7, the rows of q");
    expect_message([](Call &c) { c.offsets[2] = 8; }, L4J_EINVAL,
                   f + "q_offsets[1..2] are 4 and 8, expected ascending within 0 to 7, the rows of q");
    expect_message([](Call &c) { c.starts[1] = 8; }, L4J_EINVAL,
                   f + "sequence 1 has kv_starts 8 and kv_lengths 3, expected keys within 0 to 10, the rows of k");
    expect_message([](Call &c) { c.starts[0] = -1; }, L4J_EINVAL,
                   f + "sequence 0 has kv_starts -1 and kv_lengths 4, expected keys within 0 to 10, the rows of k");
    expect_message([](Call &c) { c.lengths[1] = 2; }, L4J_EINVAL,
                   f + "sequence 1 has 3 queries and 2 keys: its first query would see no key");
    expect_message([](Call &c) { c.lengths[1] = 0, c.args.flags = 0; }, L4J_EINVAL,
                   f + "sequence 1 has 3 queries and 0 keys: its first query would see no key");
    std::string g = "attention_backward: ";
    expect_message([](Call &c) { c.starts[1] = c.starts[0] + 1; }, L4J_EINVAL,
                   g + "sequences 0 and 1 share keys (rows 6 to 8); their gradients would overwrite each other", true);
    expect_message([](Call &c) { c.args.lse = nullptr; }, L4J_EINVAL, g + "lse is NULL", true);
    expect_message([](Call &c) { c.args.d_o = nullptr; }, L4J_EINVAL, g + "d_o is NULL", true);
    expect_message([](Call &c) { c.args.dq = nullptr; }, L4J_EINVAL, g + "dq is NULL", true);
    expect_message([](Call &c) { c.dk.mutable_tensor().shape[0] = 9; }, L4J_EINVAL,
                   g + "dk is F32 [9, 2, 8], expected F32 [10, 2, 8] because k has that shape", true);
    expect_message(
        [](Call &c) { c.dv.mutable_tensor().stride[2] = 2; }, L4J_EINVAL,
        g + "dv is F32 [10, 2, 8] with strides [16, 8, 2, 0]; an output needs an innermost stride of 1 and rows "
            "that do not overlap",
        true);
}

// Sharing keys is fine in forward: a common prompt.
TEST(AttentionTest, ForwardMayShareKeys) {
    Problem p;
    p.queries = p.keys = {6, 6};
    for (int32_t isa : l4j::tiers()) {
        Context context(isa);
        Call call(isa, p, 1);
        call.starts[1] = call.starts[0];
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &call.args)(error));
        EXPECT_TRUE(std::isfinite(call.o.at(call.o.size() - 1)));
    }
}

} // namespace
