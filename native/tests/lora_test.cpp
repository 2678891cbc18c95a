#include "lora_case.h"

namespace {

using l4j::LoraCase;
using l4j::LoraSpec;

const int64_t kSizes[] = {1, 3, 5, 6, 7, 15, 16, 17, 31, 33, 64, 100, 257, 577};

TEST(LoraTest, EdgesOfEveryDimension) {
    for (int64_t size : kSizes) {
        LoraSpec by_m, by_k, by_n, by_r;
        by_m.M = size;
        by_k.K = size;
        by_n.N = {size};
        by_r.R = {size};
        for (const LoraSpec &spec : {by_m, by_k, by_n, by_r}) {
            l4j::check_lora(spec, {1, 3});
            if (HasFatalFailure()) return;
        }
    }
}

TEST(LoraTest, GroupsWithAndWithoutAdaptersAndBiases) {
    for (int64_t M : {7, 150}) {
        for (float p : {0.0f, 0.3f}) {
            for (uint32_t flags : {0u, 1u, 2u, 3u}) {
                LoraSpec spec;
                spec.M = M;
                spec.K = 100;
                spec.N = {48, 17, 33};
                spec.R = {8, 0, 17};
                spec.bias = L4J_F32;
                spec.p = p;
                spec.flags = flags;
                spec.pad = 5;
                l4j::check_lora(spec);
                if (HasFatalFailure()) return;
            }
        }
    }
}

TEST(LoraTest, EveryDtypeAndLayout) {
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            for (int64_t M : {6, 150}) {
                LoraSpec spec;
                spec.M = M;
                spec.K = 90;
                spec.N = {70, 30};
                spec.R = {16, 4};
                spec.dtype = spec.bias = dtype;
                spec.mode = mode;
                spec.p = 0.1f;
                l4j::check_lora(spec, {2});
                if (HasFatalFailure()) return;
            }
        }
    }
}

TEST(LoraTest, OneAdapterInTheProductsChain) {
    for (int64_t R : {4, 16, 64, 65, 400}) { // up to 64 in the block beside it, above in blocks of its own
        LoraSpec spec;
        spec.M = 150;
        spec.K = 340;
        spec.N = {330};
        spec.R = {R};
        l4j::check_lora(spec, {2});
        if (HasFatalFailure()) return;
    }
}

TEST(LoraTest, ManyProjections) {
    LoraSpec spec;
    spec.N.assign(16, 9);
    spec.R.assign(16, 3);
    spec.p = 0.5f;
    l4j::check_lora(spec, {2});
}

TEST(LoraTest, MoreRowsThanAChunk) {
    LoraSpec wide;
    wide.M = 300;
    wide.K = 16400;
    wide.N = {9};
    wide.R = {3};
    l4j::check_lora(wide, {2});
    LoraSpec tall = wide;
    tall.K = 9;
    tall.N = {16400};
    tall.p = 0.25f;
    tall.flags = L4J_LORA_ACCUMULATE_GRADS;
    l4j::check_lora(tall, {2});
}

TEST(LoraTest, StridesAndAlignmentOfInputs) {
    for (LoraSpec::Strides strides : {LoraSpec::kRows, LoraSpec::kTransposed, LoraSpec::kBroadcast}) {
        for (l4j::Guarded::Side side : {l4j::Guarded::kAfter, l4j::Guarded::kBefore}) {
            for (float p : {0.0f, 0.5f}) {
                LoraSpec spec;
                spec.M = 37;
                spec.K = 67;
                spec.N = {45, 16};
                spec.R = {6, 16};
                spec.input_strides = strides;
                spec.side = side;
                spec.misalign = side == l4j::Guarded::kBefore ? 8 : 0;
                spec.pad = 1;
                spec.p = p;
                l4j::check_lora(spec, {2});
                if (HasFatalFailure()) return;
            }
        }
    }
}

TEST(LoraTest, OnlyWhatIsWanted) {
    for (bool dx : {false, true}) {
        for (bool grads : {false, true}) {
            LoraSpec spec;
            spec.dx = dx;
            spec.grads = grads;
            spec.p = 0.2f;
            l4j::check_lora(spec, {2});
            if (HasFatalFailure()) return;
        }
    }
}

TEST(LoraTest, PaddingBetweenRowsIsLeftAlone) {
    for (int32_t isa : l4j::tiers()) {
        LoraSpec spec;
        spec.pad = 3;
        spec.p = 0.2f;
        LoraCase c(spec, isa, 2);
        c.forward();
        c.backward();
        for (auto &[name, operand] : c.outputs()) {
            const l4j_tensor *t = operand->get();
            for (int64_t i = 0; i + 1 < t->shape[0]; i++) {
                for (int64_t j = t->shape[1]; j < t->stride[0]; j++) {
                    uint32_t bits;
                    memcpy(&bits, static_cast<float *>(t->data) + i * t->stride[0] + j, 4);
                    ASSERT_EQ(0xFFFFFFFFu, bits) << name << " " << l4j::tier_name(isa);
                }
            }
        }
    }
}

TEST(LoraTest, NoRows) {
    for (int32_t isa : l4j::tiers()) {
        LoraSpec spec;
        spec.M = 0;
        LoraCase overwritten(spec, isa, 2);
        overwritten.forward();
        overwritten.backward();
        for (double v : overwritten.da[0].values()) ASSERT_EQ(0, v);
        for (double v : overwritten.db[0].values()) ASSERT_EQ(0, v);
        spec.flags = L4J_LORA_ACCUMULATE_GRADS;
        LoraCase kept(spec, isa, 2);
        std::vector<float> before = kept.da[0].floats();
        kept.backward();
        EXPECT_TRUE(l4j::same_bits(before, kept.da[0].floats()));
    }
}

TEST(LoraTest, AHundredRunsGiveTheSameBits) {
    for (int32_t isa : l4j::tiers()) {
        LoraSpec spec;
        spec.M = 40;
        spec.N = {31, 20};
        spec.R = {5, 4};
        spec.p = 0.1f;
        LoraCase c(spec, isa, 5);
        l4j::check_runs(c, 100);
    }
}

// One argument struct serves every step: only what it points to changes.
TEST(LoraTest, ThreeStepsWithOneArgumentStruct) {
    for (int32_t isa : l4j::tiers()) {
        LoraSpec spec;
        spec.p = 0.4f;
        LoraCase c(spec, isa, 2);
        l4j_lora args = c.args();
        for (int64_t step = 0; step < 3; step++) {
            c.seed = 77 + static_cast<uint64_t>(step);
            c.step = step;
            c.scaling[0] = 1.0f + static_cast<float>(step);
            for (uint32_t &t : c.token_index) t += 100;
            c.x.fill(l4j::Random(static_cast<uint64_t>(step)).floats(c.x.size()));
            L4J_ASSERT_OK(L4J_RUN(lora_forward, c.context().queue(), &args)(error));
            L4J_ASSERT_OK(L4J_RUN(lora_backward, c.context().queue(), &args)(error));
            LoraCase fresh(spec, L4J_ISA_REF, 1);
            fresh.seed = c.seed;
            fresh.step = c.step;
            fresh.scaling = c.scaling;
            fresh.token_index = c.token_index;
            fresh.x.fill(c.x.floats());
            fresh.forward();
            fresh.backward();
            auto expected = fresh.outputs(), got = c.outputs();
            for (size_t i = 0; i < got.size(); i++) {
                ASSERT_TRUE(l4j::same_bits(expected[i].second->floats(), got[i].second->floats()))
                    << got[i].first << " step " << step;
            }
        }
    }
}

// What the header says about dropout, on an example small enough to see: x = 1, A = identity.
TEST(LoraTest, DropoutFollowsThePhiloxBits) {
    for (int32_t isa : l4j::tiers()) {
        LoraSpec spec;
        spec.M = 9;
        spec.K = 70;
        spec.N = {4};
        spec.R = {70};
        spec.p = 0.25f;
        LoraCase c(spec, isa, 2);
        c.x.fill(1.0);
        for (int64_t r = 0; r < 70; r++) {
            for (int64_t k = 0; k < 70; k++) c.a[0].set(r * 70 + k, r == k ? 1 : 0);
        }
        c.forward();
        for (int64_t m = 0; m < 9; m++) {
            std::vector<uint16_t> bits(70);
            L4J_ASSERT_OK(l4j_philox_mask16(c.seed, c.step, c.token_index[static_cast<size_t>(m)], c.module_id[0],
                                            c.adapter_id, 70, bits.data(), error));
            for (int64_t k = 0; k < 70; k++) {
                double kept = bits[static_cast<size_t>(k)] >= 16384 ? static_cast<double>(0.5f / 0.75f) : 0.0;
                ASSERT_EQ(kept, c.s[0].at(m * 70 + k)) << m << ", " << k;
            }
        }
    }
}

// ---- derivatives, on the fp64 tier ----

// L = Σ_g <dy_g, y_g>.
double loss(LoraCase &c) {
    c.forward();
    double sum = 0;
    for (size_t g = 0; g < c.y.size(); g++) {
        for (int64_t i = 0; i < c.y[g].size(); i++) sum += c.dy[g].at(i) * c.y[g].at(i);
    }
    return sum;
}

void check_gradient(LoraCase &c, l4j::Operand &input, const l4j::Operand &gradient, const char *name) {
    for (int64_t i = 0; i < input.size(); i++) {
        double old = input.at(i), h = 1e-3; // y is bilinear: the central difference is exact up to rounding
        input.set(i, old + h);
        double up = loss(c);
        input.set(i, old - h);
        double down = loss(c);
        input.set(i, old);
        ASSERT_NEAR((up - down) / (2 * h), gradient.at(i), 1e-9) << name << " element " << i;
    }
}

TEST(LoraTest, GradientsAreFiniteDifferences) {
    for (float p : {0.0f, 0.3f}) {
        LoraSpec spec;
        spec.M = 5;
        spec.K = 37;
        spec.N = {6, 4, 3};
        spec.R = {3, 0, 2};
        spec.bias = L4J_F32;
        spec.p = p;
        LoraCase c(spec, L4J_ISA_REF64, 1);
        c.forward();
        c.backward();
        check_gradient(c, c.x, c.dx, "x");
        for (size_t g : {0, 2}) {
            check_gradient(c, c.a[g], c.da[g], "a");
            check_gradient(c, c.b[g], c.db[g], "b");
        }
    }
}

// <dy, J x'> = <Jᵀ dy, x'>: backward is the adjoint of forward, on every tier.
TEST(LoraTest, BackwardIsTheAdjointOfForward) {
    std::vector<int32_t> all = l4j::tiers();
    all.push_back(L4J_ISA_REF64);
    for (int32_t isa : all) {
        LoraSpec spec;
        spec.M = 150;
        spec.K = 120;
        spec.N = {90, 50};
        spec.R = {8, 4};
        spec.p = 0.2f;
        LoraCase c(spec, isa, 2);
        double forward = loss(c), adjoint = 0, size = 0;
        c.backward();
        for (int64_t i = 0; i < c.x.size(); i++) {
            adjoint += c.dx.at(i) * c.x.at(i);
            size += std::fabs(c.dx.at(i) * c.x.at(i));
        }
        EXPECT_NEAR(forward, adjoint, (isa == L4J_ISA_REF64 ? 1e-13 : 1e-6) * size) << l4j::tier_name(isa);
    }
}

} // namespace
