#include "tier_check.h"

namespace {

using l4j::Operand;

l4j_embedding arguments(const std::vector<int32_t> &ids) {
    l4j_embedding args = {};
    args.struct_size = sizeof args;
    args.ids = ids.data();
    return args;
}

std::vector<int32_t> some_ids(int64_t count, int64_t V) {
    l4j::Random random(5);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < count; i++) ids.push_back(static_cast<int32_t>(random.below(V)));
    return ids;
}

TEST(EmbeddingTest, ForwardCopiesRows) {
    std::vector<int32_t> all = l4j::devices();
    all.push_back(L4J_ISA_REF64);
    for (int32_t isa : all) {
        for (int threads : {1, 5}) {
            l4j::Context context(isa, threads);
            for (int64_t N : {1, 15, 16, 17, 33, 100}) {
                int64_t V = 37;
                std::vector<float> values = l4j::Random(2).floats(V * N);
                for (float &v : values)
                    v = static_cast<float>(static_cast<int>(v * 128)) / 128; // exact in bf16 and fp16
                std::vector<int32_t> ids = some_ids(50, V);
                for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
                    for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
                        l4j::TestWeight weight(context, V, N, values, dtype, mode, 3);
                        Operand out(isa, {50, N}, 2);
                        l4j_embedding args = arguments(ids);
                        args.weight = weight.get();
                        args.out = out.get();
                        L4J_ASSERT_OK(L4J_RUN(embedding_forward, context.queue(), &args)(error));
                        for (int64_t i = 0; i < 50 * N; i++) {
                            int64_t row = ids[static_cast<size_t>(i / N)];
                            ASSERT_EQ(static_cast<double>(values[static_cast<size_t>(row * N + i % N)]), out.at(i));
                        }
                    }
                }
            }
        }
    }
}

// Rows that occur several times are added in ascending order.
TEST(EmbeddingTest, BackwardAddsRowsInOrder) {
    for (int64_t N : {1, 15, 16, 17, 33, 100}) {
        int64_t V = 7;
        std::vector<int32_t> ids = some_ids(50, V);
        std::vector<float> old = l4j::Random(1).floats(V * N), dout = l4j::Random(2).floats(50 * N), expected = old;
        for (int64_t i = 0; i < 50 * N; i++) {
            int64_t row = ids[static_cast<size_t>(i / N)];
            expected[static_cast<size_t>(row * N + i % N)] += dout[static_cast<size_t>(i)];
        }
        for (int32_t isa : l4j::devices()) {
            for (int threads : {1, 2, 5}) {
                for (bool transposed : {false, true}) {
                    l4j::Context context(isa, threads);
                    Operand table(isa, {V, N}, 3),
                        gradient(isa, transposed ? std::vector<int64_t>{N, 50} : std::vector<int64_t>{50, N}, 1);
                    if (transposed) {
                        l4j_tensor &t = gradient.mutable_tensor();
                        std::swap(t.shape[0], t.shape[1]);
                        std::swap(t.stride[0], t.stride[1]);
                    }
                    table.fill(old);
                    gradient.fill(dout);
                    l4j_embedding args = arguments(ids);
                    args.dout = gradient.get();
                    args.dweight = table.get();
                    L4J_ASSERT_OK(L4J_RUN(embedding_backward, context.queue(), &args)(error));
                    ASSERT_TRUE(l4j::same_bits(expected, table.floats())) << l4j::tier_name(isa);
                }
            }
        }
    }
}

// L = Σ dout ⊙ weight[ids] on the fp64 tier. The weight is stored fp32, where steps of 1/4 of these values are exact.
TEST(EmbeddingTest, FiniteDifferences) {
    l4j::Context context(L4J_ISA_REF64);
    std::vector<int32_t> ids = some_ids(20, 6);
    Operand out(L4J_ISA_REF64, {20, 5}), dout(L4J_ISA_REF64, {20, 5}), gradient(L4J_ISA_REF64, {6, 5});
    dout.fill(l4j::Random(3).floats(100));
    gradient.fill(0.0);
    l4j_embedding args = arguments(ids);
    args.out = out.get();
    args.dout = dout.get();
    args.dweight = gradient.get();
    L4J_ASSERT_OK(L4J_RUN(embedding_backward, context.queue(), &args)(error));
    std::vector<float> values(30, 1.0f);
    auto loss = [&](int64_t i, float value) {
        values[static_cast<size_t>(i)] = value;
        l4j::TestWeight weight(context, 6, 5, values);
        values[static_cast<size_t>(i)] = 1.0f;
        args.weight = weight.get();
        l4j_error error = {};
        EXPECT_EQ(L4J_OK, L4J_RUN(embedding_forward, context.queue(), &args)(&error)) << error.message;
        double sum = 0;
        for (int64_t j = 0; j < 100; j++) sum += out.at(j) * dout.at(j);
        return sum;
    };
    for (int64_t i = 0; i < 30; i++) {
        ASSERT_NEAR((loss(i, 1.25f) - loss(i, 0.75f)) / 0.5, gradient.at(i), 1e-12) << i;
    }
}

TEST(EmbeddingTest, AHundredRunsGiveTheSameBits) {
    std::vector<int32_t> ids = some_ids(200, 7);
    std::vector<float> values = l4j::Random(2).floats(7 * 65);
    l4j::check_repeats([&](const l4j::Context &context, int32_t isa) -> l4j::Outputs {
        l4j::TestWeight weight(context, 7, 65, values);
        Operand out(isa, {200, 65}), gradient(isa, {7, 65});
        gradient.fill(0.0);
        l4j_embedding args = arguments(ids);
        args.weight = weight.get();
        args.out = out.get();
        EXPECT_EQ(L4J_OK, L4J_RUN(embedding_forward, context.queue(), &args)(nullptr));
        args.dout = out.get();
        args.dweight = gradient.get();
        EXPECT_EQ(L4J_OK, L4J_RUN(embedding_backward, context.queue(), &args)(nullptr));
        return {{"out", out}, {"dweight", gradient}};
    });
}

TEST(EmbeddingTest, NoRows) {
    l4j::Context context(l4j::tiers().back(), 2);
    l4j::TestWeight weight(context, 3, 4, l4j::Random(1).floats(12));
    Operand out(L4J_ISA_REF, {0, 4});
    l4j_embedding args = arguments({});
    args.ids = nullptr;
    args.weight = weight.get();
    args.out = out.get();
    L4J_ASSERT_OK(L4J_RUN(embedding_forward, context.queue(), &args)(error));
}

TEST(EmbeddingTest, BadArgumentsAreRefused) {
    l4j::Context context(L4J_ISA_REF);
    l4j::TestWeight weight(context, 3, 4, l4j::Random(1).floats(12));
    std::vector<int32_t> ids = {0, 2, 3}, negative = {0, -1, 2}, good = {0, 1, 2};
    Operand rows(L4J_ISA_REF, {3, 4}), narrow(L4J_ISA_REF, {3, 5}), table(L4J_ISA_REF, {3, 4});
    table.fill(0.0);
    l4j_error error = {};
    auto forward = [&](const std::vector<int32_t> &list, const l4j_weight *w, const l4j_tensor *out) {
        l4j_embedding args = arguments(list);
        args.weight = w;
        args.out = out;
        return l4j_embedding_forward(context.queue(), &args, nullptr, 0, &error);
    };
    EXPECT_EQ(L4J_EINVAL, forward(ids, weight.get(), rows.get()));
    EXPECT_STREQ("embedding_forward: ids[2] is 3, expected 0 to 2", error.message);
    EXPECT_EQ(L4J_EINVAL, forward(negative, weight.get(), rows.get()));
    EXPECT_STREQ("embedding_forward: ids[1] is -1, expected 0 to 2", error.message);
    EXPECT_TRUE(std::isnan(rows.at(0))) << "written to before the refusal";
    EXPECT_EQ(L4J_EINVAL, forward(good, nullptr, rows.get()));
    EXPECT_STREQ("embedding_forward: weight is NULL", error.message);
    EXPECT_EQ(L4J_EINVAL, forward(good, weight.get(), narrow.get()));
    EXPECT_STREQ("embedding_forward: out is F32 [3, 5], expected F32 [any, 4] because weight has that many columns",
                 error.message);
    auto backward = [&](const std::vector<int32_t> &list, const l4j_tensor *dout, const l4j_tensor *dweight) {
        l4j_embedding args = arguments(list);
        args.dout = dout;
        args.dweight = dweight;
        return l4j_embedding_backward(context.queue(), &args, nullptr, 0, &error);
    };
    EXPECT_EQ(L4J_EINVAL, backward(ids, rows.get(), table.get()));
    EXPECT_STREQ("embedding_backward: ids[2] is 3, expected 0 to 2", error.message);
    EXPECT_EQ(L4J_EINVAL, backward(good, rows.get(), narrow.get()));
    EXPECT_STREQ("embedding_backward: dweight is F32 [3, 5], expected F32 [any, 4] because dout has that many columns",
                 error.message);
    EXPECT_EQ(L4J_EINVAL, backward(good, table.get(), table.get()));
    EXPECT_STREQ("embedding_backward: dweight and dout have the same memory; an output may not overlap an input",
                 error.message);
    l4j_embedding args = arguments(good);
    args.reserved[0] = 1;
    EXPECT_EQ(L4J_EINVAL, l4j_embedding_forward(context.queue(), &args, nullptr, 0, &error));
    EXPECT_STREQ("embedding_forward: reserved[0] is not zero", error.message);
}

} // namespace
