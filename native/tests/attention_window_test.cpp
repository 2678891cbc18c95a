#include "attention_case.h"

namespace {

using l4j::Context;
using l4j::Guarded;
using l4j::Operand;
using l4j::attention::bits;
using l4j::attention::Call;
using l4j::attention::check;
using l4j::attention::Problem;

// A window of one key, about tiles and panels, of about the length, and longer; sequences shorter than it beside.
TEST(AttentionWindowTest, WindowsAroundTiles) {
    for (int32_t window : {1, 2, 5, 6, 12, 15, 16, 17, 33, 63, 64, 65, 129, 130, 1000}) {
        Problem p;
        p.queries = p.keys = {130, 1, 7};
        p.window = window;
        check(p, {1, 5});
        p.queries = p.keys = {70};
        p.q_heads = 6;
        p.kv_heads = 2;
        p.depth = 20;
        p.side = Guarded::kBefore;
        p.pad = 3;
        check(p, {1, 2});
    }
}

// Many blocks of queries for one head: each has its own part of the keys.
TEST(AttentionWindowTest, ManyBlocks) {
    for (int32_t window : {3, 48, 300}) {
        Problem p;
        p.queries = p.keys = {800, 3};
        p.q_heads = 2;
        p.depth = 4;
        p.window = window;
        check(p, {1, 5});
    }
}

// Fewer queries than keys: decoding and chunked prefill.
TEST(AttentionWindowTest, MoreKeysThanQueries) {
    for (int32_t window : {1, 16, 20, 74, 75, 500}) {
        Problem p;
        p.queries = {1, 1, 20, 0, 64};
        p.keys = {1, 200, 75, 40, 65};
        p.q_heads = 3;
        p.kv_heads = 1;
        p.depth = 24;
        p.window = window;
        check(p);
    }
}

// A window that no query fills has the bits of none.
TEST(AttentionWindowTest, WideWindowEqualsNone) {
    Problem p;
    p.queries = p.keys = {90, 33};
    p.q_heads = 4;
    p.kv_heads = 2;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call none(isa, p, 3);
        none.run(context);
        p.window = 90;
        Call wide(isa, p, 3);
        wide.run(context);
        p.window = 89;
        Call narrow(isa, p, 3);
        narrow.run(context);
        p.window = 0;
        for (size_t i = 0; i < none.outputs().size(); i++) {
            auto [what, x] = none.outputs()[i];
            EXPECT_TRUE(l4j::same_bits(bits(*wide.outputs()[i].second, p), bits(*x, p))) << what;
            EXPECT_FALSE(l4j::same_bits(bits(*narrow.outputs()[i].second, p), bits(*x, p))) << what;
        }
    }
}

// What lies before a query's window has no influence, not even a NaN.
TEST(AttentionWindowTest, EarlierKeysHaveNoInfluence) {
    Problem p;
    p.queries = p.keys = {70};
    p.depth = 16;
    p.window = 20;
    for (int32_t isa : l4j::tiers()) {
        Context context(isa, 2);
        Call clean(isa, p, 5), poisoned(isa, p, 5);
        for (int64_t i = 0; i < 41 * 16; i++) {
            poisoned.k.set(16 + i, NAN);
            poisoned.v.set(16 + i, INFINITY);
        }
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &clean.args)(error));
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &poisoned.args)(error));
        for (int64_t i = 0; i < 60 * 16; i++) ASSERT_TRUE(std::isnan(poisoned.o.at(i))) << i;
        for (int64_t i = 60 * 16; i < 70 * 16; i++) ASSERT_EQ(clean.o.at(i), poisoned.o.at(i)) << i;
    }
}

// Scores are kept of the keys in the window alone.
TEST(AttentionWindowTest, WorkspaceGrowsWithTheWindow) {
    for (int32_t isa : l4j::tiers()) {
        if (isa == L4J_ISA_REF) continue; // keeps whole rows
        Context context(isa, 2);
        size_t bytes[2][2];
        for (int i : {0, 1}) {
            Problem p;
            p.queries = p.keys = {i ? 16000 : 4000};
            p.depth = 1;
            p.window = 512;
            Call call(isa, p, 1);
            L4J_ASSERT_OK(l4j_attention_forward_workspace(context.queue(), &call.args, &bytes[0][i], error));
            L4J_ASSERT_OK(l4j_attention_backward_workspace(context.queue(), &call.args, &bytes[1][i], error));
        }
        EXPECT_EQ(bytes[0][0], bytes[0][1]);
        EXPECT_EQ(bytes[1][0], bytes[1][1]);
    }
}

std::vector<std::pair<int32_t, int32_t>> with_windows(const std::vector<int32_t> &windows) {
    std::vector<std::pair<int32_t, int32_t>> pairs;
    for (int32_t isa : l4j::tiers()) {
        for (int32_t window : windows) pairs.emplace_back(isa, window);
    }
    return pairs;
}

// Token by token from a cache: the same bits.
TEST(AttentionWindowTest, DecodingEqualsRecomputation) {
    Problem whole;
    whole.queries = whole.keys = {150};
    whole.q_heads = 6;
    whole.kv_heads = 2;
    whole.depth = 32;
    for (auto [isa, window] : with_windows({1, 16, 40, 149})) {
        whole.window = window;
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

} // namespace
