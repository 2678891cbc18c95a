// L4J_COMPUTE_BF16: against fp64 of the rounded operands, and the same bits on every tier.
#include "lora_case.h"

namespace {

using l4j::LoraCase;
using l4j::LoraSpec;

LoraSpec bf16_spec(int32_t layout = L4J_COMPUTE_BF16) {
    LoraSpec spec;
    spec.compute = L4J_COMPUTE_BF16;
    spec.layout = layout;
    if (layout == L4J_COMPUTE_BF16) spec.mode = L4J_WEIGHT_PACK;
    return spec;
}

TEST(Bf16Test, EveryNumberOfRows) {
    for (int64_t M = 1; M <= 65; M++) {
        LoraSpec spec = bf16_spec();
        spec.M = M;
        spec.K = 70;
        spec.N = {50};
        l4j::check_lora(spec, {1, 3});
        if (HasFatalFailure()) return;
    }
}

TEST(Bf16Test, EdgesOfEveryDimension) {
    for (int64_t size : {1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 34, 35, 47, 48, 49, 63, 64, 65, 257, 300}) {
        LoraSpec by_k = bf16_spec(), by_n = by_k, by_r = by_k, plain = by_k;
        by_k.K = size;
        by_n.N = {size};
        by_r.R = {size};
        plain.K = size;
        plain.N = {size};
        plain.R = {0};
        for (const LoraSpec &spec : {by_k, by_n, by_r, plain}) {
            l4j::check_lora(spec, {1, 3});
            if (HasFatalFailure()) return;
        }
    }
}

TEST(Bf16Test, GroupsWithAndWithoutAdaptersAndBiases) {
    for (int64_t M : {7, 150}) {
        for (float p : {0.0f, 0.3f}) {
            for (uint32_t flags : {0u, 1u, 2u, 3u}) {
                LoraSpec spec = bf16_spec();
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

// How a weight is stored decides about its rounding only: one that is bf16 gives the same bits in every layout.
TEST(Bf16Test, EveryDtypeAndLayout) {
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
            for (int32_t layout : {L4J_COMPUTE_F32, L4J_COMPUTE_BF16}) {
                if (mode == L4J_WEIGHT_BORROW && layout == L4J_COMPUTE_BF16) continue;
                for (int64_t M : {6, 150}) {
                    LoraSpec spec = bf16_spec(layout);
                    spec.mode = mode;
                    spec.M = M;
                    spec.K = 90;
                    spec.N = {70, 30};
                    spec.R = {16, 4};
                    spec.dtype = spec.bias = dtype;
                    spec.p = 0.1f;
                    l4j::check_lora(spec, {2});
                    if (HasFatalFailure()) return;
                    LoraSpec borrowed = spec;
                    borrowed.mode = L4J_WEIGHT_BORROW;
                    borrowed.layout = L4J_COMPUTE_F32;
                    LoraCase a(spec, L4J_ISA_AUTO, 2), b(borrowed, L4J_ISA_AUTO, 2);
                    for (LoraCase *c : {&a, &b}) {
                        c->forward();
                        c->backward();
                    }
                    auto expected = b.outputs(), got = a.outputs();
                    for (size_t i = 0; i < got.size(); i++)
                        ASSERT_TRUE(l4j::same_bits(expected[i].second->floats(), got[i].second->floats()))
                            << got[i].first << " " << l4j::describe(spec, 0, 2);
                }
            }
        }
    }
}

// A weight that lies in tiles is one of dtype BF16 to operations in fp32.
TEST(Bf16Test, TilesServeFp32Too) {
    for (int64_t M : {1, 3, 6, 150}) {
        LoraSpec spec = bf16_spec();
        spec.compute = L4J_COMPUTE_F32;
        spec.M = M;
        spec.K = 90;
        spec.N = {70, 30};
        spec.R = {16, 4};
        l4j::check_lora(spec, {2});
        if (HasFatalFailure()) return;
    }
}

TEST(Bf16Test, SeveralPassesOverTheContraction) {
    for (int64_t R : {4, 16, 64, 65, 300}) {
        LoraSpec spec = bf16_spec();
        spec.M = 70;
        spec.K = 600;
        spec.N = {330};
        spec.R = {R};
        l4j::check_lora(spec, {2});
        if (HasFatalFailure()) return;
    }
}

// More rows than a group has, and a contraction so long that C waits in memory between its parts; both ways round.
TEST(Bf16Test, SeveralGroupsAndDepths) {
    for (bool wide : {false, true}) {
        LoraSpec spec = bf16_spec();
        spec.M = 150;
        spec.K = wide ? 40 : 4200;
        spec.N = {wide ? 4200 : 40};
        spec.R = {16};
        l4j::check_lora(spec, {2});
        if (HasFatalFailure()) return;
    }
}

TEST(Bf16Test, StridesAndAlignmentOfInputs) {
    for (LoraSpec::Strides strides : {LoraSpec::kRows, LoraSpec::kTransposed, LoraSpec::kBroadcast}) {
        for (l4j::Guarded::Side side : {l4j::Guarded::kAfter, l4j::Guarded::kBefore}) {
            for (float p : {0.0f, 0.5f}) {
                LoraSpec spec = bf16_spec();
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

TEST(Bf16Test, OnlyWhatIsWanted) {
    for (bool dx : {false, true}) {
        for (bool grads : {false, true}) {
            LoraSpec spec = bf16_spec();
            spec.dx = dx;
            spec.grads = grads;
            spec.p = 0.2f;
            l4j::check_lora(spec, {2});
            if (HasFatalFailure()) return;
        }
    }
}

} // namespace
