// The product with a base weight and its transpose, without adapters: every edge of the blocked loops, every layout and dtype.
#include "lora_case.h"

namespace {

const int64_t kSizes[] = {1, 3, 5, 6, 7, 15, 16, 17, 31, 33, 64, 100, 257, 577};

l4j::LoraSpec plain(int64_t M, int64_t N, int64_t K) {
    l4j::LoraSpec spec;
    spec.M = M;
    spec.K = K;
    spec.N = {N};
    spec.R = {0};
    return spec;
}

TEST(GemmTest, EdgesOfEveryDimension) {
    for (int64_t size : kSizes) {
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            for (l4j::LoraSpec spec : {plain(size, 33, 40), plain(19, size, 40), plain(19, 33, size)}) {
                spec.mode = mode;
                l4j::check_lora(spec, {1, 3});
                if (HasFatalFailure()) return;
            }
        }
    }
}

// Enough rows for the blocked loops, whose threads share packed blocks.
TEST(GemmTest, ManyRowsInEveryLayoutAndDtype) {
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            for (int64_t N : {17, 100}) {
                l4j::LoraSpec spec = plain(257, N, 347);
                spec.dtype = dtype;
                spec.mode = mode;
                spec.pad = 3;
                l4j::check_lora(spec);
                if (HasFatalFailure()) return;
            }
        }
    }
}

TEST(GemmTest, FewRowsInEveryLayoutAndDtype) {
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            for (int64_t M : {1, 2, 3, 4, 8, 13}) {
                l4j::LoraSpec spec = plain(M, 205, 333);
                spec.dtype = dtype;
                spec.mode = mode;
                l4j::check_lora(spec);
                if (HasFatalFailure()) return;
            }
        }
    }
}

// More columns than one packed block of B holds, in the forward and in the transposed product.
TEST(GemmTest, MoreColumnsThanABlock) {
    l4j::check_lora(plain(150, 2070, 65), {2});
    l4j::check_lora(plain(150, 65, 2070), {2});
}

// More rows than are packed at once.
TEST(GemmTest, MoreRowsThanAChunk) {
    l4j::check_lora(plain(300, 9, 16400), {2});
    l4j::check_lora(plain(300, 16400, 9), {2});
}

TEST(GemmTest, AHundredRunsGiveTheSameBits) {
    for (int32_t isa : l4j::tiers()) {
        l4j::LoraSpec spec = plain(150, 70, 90);
        l4j::LoraCase c(spec, isa, 5);
        c.forward();
        c.backward();
        std::vector<float> y = c.y[0].floats(), dx = c.dx.floats();
        for (int run = 1; run < 100; run++) {
            c.y[0].fill(std::nan(""));
            c.forward();
            c.backward();
            ASSERT_TRUE(l4j::same_bits(y, c.y[0].floats())) << l4j::tier_name(isa) << " run " << run;
            ASSERT_TRUE(l4j::same_bits(dx, c.dx.floats())) << l4j::tier_name(isa) << " run " << run;
        }
    }
}

// A row's result does not depend on the rows beside it.
TEST(GemmTest, BatchDoesNotChangeBits) {
    for (int32_t isa : l4j::tiers()) {
        l4j::LoraCase all(plain(150, 70, 90), isa, 2);
        all.forward();
        std::vector<float> x = all.x.floats(), y = all.y[0].floats();
        for (int64_t m : {0, 77, 149}) {
            l4j::LoraCase one(plain(1, 70, 90), isa, 2);
            l4j::TestWeight weight(one.context(), 70, 90, [&] {
                l4j::Random random(1);
                random.floats(150 * 90); // x of the batch comes first
                return random.floats(70 * 90, 1.0f / std::sqrt(90.0f));
            }());
            const l4j_weight *handle = weight.get();
            one.x.fill(std::vector<float>(x.begin() + m * 90, x.begin() + (m + 1) * 90));
            l4j_lora args = one.args();
            args.weights = &handle;
            L4J_ASSERT_OK(L4J_RUN(lora_forward, one.context().queue(), &args)(error));
            ASSERT_TRUE(
                l4j::same_bits(std::vector<float>(y.begin() + m * 70, y.begin() + (m + 1) * 70), one.y[0].floats()));
        }
    }
}

} // namespace
