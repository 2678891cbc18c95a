// Several adapters in a batch: every result has the bits of calls with one adapter's rows alone.
#include "segments_case.h"

namespace {

using l4j::segments::Call;
using l4j::segments::check;
using l4j::segments::is_poison;
using l4j::segments::Spec;
using l4j::segments::Values;

TEST(LoraSegmentsTest, RunsOfEveryLength) {
    for (int64_t length : {1, 2, 5, 6, 7, 12, 13, 31, 64, 150}) {
        Spec spec;
        spec.segments = {{length, 0}, {3, -1}, {length, 1}, {1, 2}, {length, 0}, {2, 2}};
        check(spec, {1, 3});
        if (HasFatalFailure()) return;
    }
}

TEST(LoraSegmentsTest, DropoutFlagsBiasesAndStoredWeights) {
    for (float p : {0.0f, 0.3f}) {
        for (uint32_t flags : {0u, 1u, 2u, 3u}) {
            Spec spec;
            spec.segments = {{9, 2}, {20, 0}, {4, -1}, {17, 1}, {6, 0}};
            spec.p = p;
            spec.flags = flags;
            spec.bias = flags & 1;
            spec.dtype = p > 0 ? L4J_BF16 : L4J_F16;
            spec.mode = flags & 2 ? L4J_WEIGHT_PACK : L4J_WEIGHT_BORROW;
            check(spec, {2});
            if (HasFatalFailure()) return;
        }
    }
}

TEST(LoraSegmentsTest, OneAdapterForAllRowsOrNone) {
    for (int32_t adapter : {-1, 0, 1, 2}) {
        Spec spec;
        spec.segments = {{40, adapter}, {0, 1}, {33, adapter}};
        check(spec, {2});
        if (HasFatalFailure()) return;
    }
}

TEST(LoraSegmentsTest, EveryRowAnAdapterOfItsOwn) {
    Spec spec;
    spec.R.clear();
    for (int32_t i = 0; i < 40; i++) {
        spec.R.push_back({1 + i % 5, i % 7 == 0 ? 0 : 17});
        spec.segments.push_back({1, i});
    }
    check(spec, {2});
}

TEST(LoraSegmentsTest, RanksThatNeedSeveralBlocks) {
    Spec spec;
    spec.K = 33;
    spec.N = {34};
    spec.R = {{400}, {65}};
    spec.segments = {{14, 0}, {9, 1}, {3, 0}};
    spec.p = 0.25f;
    check(spec, {2});
}

TEST(LoraSegmentsTest, MoreRowsThanAChunk) {
    Spec spec;
    spec.K = 16400;
    spec.N = {9};
    spec.R = {{3}, {5}};
    spec.segments = {{200, 0}, {77, 1}, {30, -1}, {40, 0}};
    check(spec, {2});
}

// Segments that fill tiles, some that do not, and rows without an adapter between them: on a GPU the former take other kernels.
TEST(LoraSegmentsTest, LongSegmentsOnAGpu) {
    for (auto [K, N] : {std::pair<int64_t, int64_t>{64, 1800}, {1800, 64}}) {
        for (float p : {0.0f, 0.25f}) {
            Spec spec;
            spec.K = K;
            spec.N = {N};
            spec.R = {{8}, {16}, {8}};
            spec.segments = {{700, 0}, {5, 1}, {595, 2}, {130, -1}, {256, -1}, {600, 0}, {41, 2}};
            spec.p = p;
            spec.aligned = true;
            spec.flags = p > 0 ? L4J_LORA_ACCUMULATE_DX : 0;
            l4j::on_gpu(0, [&](double) { check(spec, L4J_ISA_CUDA, {L4J_ISA_CUDA}, {0}); });
            if (HasFatalFailure()) return;
        }
    }
}

// With the flag a GPU may choose any kernel; the CPU's bits do not change.
TEST(LoraSegmentsTest, BatchDependent) {
    Spec spec;
    spec.segments = {{10, 0}, {13, 1}, {4, -1}, {6, 2}};
    spec.flags = L4J_LORA_BATCH_DEPENDENT;
    check(spec, L4J_ISA_REF, {L4J_ISA_AUTO}, {2});
    if (!l4j::has_gpu()) return;
    spec.K = 1024;
    spec.N = {1032};
    spec.R = {{8}, {16}};
    spec.segments = {{200, 0}, {30, -1}, {170, 1}};
    spec.aligned = true;
    for (float p : {0.0f, 0.25f}) {
        l4j::gpu_dtype() = L4J_BF16;
        spec.p = p;
        Values values(spec);
        std::vector<int64_t> rows;
        for (int64_t m = 0; m < spec.rows(); m++) rows.push_back(m);
        Call exact(spec, values, L4J_ISA_REF64, 2, rows, {0, 1}, true),
            call(spec, values, L4J_ISA_CUDA, 0, rows, {0, 1}, true);
        exact.run();
        call.run();
        EXPECT_LT(l4j::relative_error(call.y[0].values(), exact.y[0].values()), 4.5e-3);
        EXPECT_LT(l4j::relative_error(call.dx.values(), exact.dx.values()), 4.5e-3);
        for (size_t i = 0; i < 2; i++) {
            EXPECT_LT(l4j::relative_error(call.da[i].values(), exact.da[i].values()), 4.5e-3);
            EXPECT_LT(l4j::relative_error(call.db[i].values(), exact.db[i].values()), 4.5e-3);
        }
        l4j::gpu_dtype() = L4J_F32;
    }
}

TEST(LoraSegmentsTest, NoRows) {
    Spec spec;
    check(spec, {2}); // no segments at all
    spec.segments = {{0, 1}, {0, -1}};
    check(spec, {2});
}

// The same arguments serve other segments: they are read when the operation runs.
TEST(LoraSegmentsTest, SegmentsMayChangeBetweenRuns) {
    Spec first, second;
    first.segments = {{10, 0}, {13, 1}};
    second.segments = {{4, 2}, {19, 0}};
    Values values(first);
    std::vector<int64_t> rows;
    for (int64_t m = 0; m < 23; m++) rows.push_back(m);
    for (int32_t isa : l4j::tiers()) {
        Call call(first, values, isa, 2, rows, {0, 1, 2}, true);
        l4j_lora args = call.args();
        L4J_ASSERT_OK(L4J_RUN(lora_forward, call.context().queue(), &args)(error));
        call.offsets_[1] = 4;
        call.segment_adapters_[0] = 2;
        call.segment_adapters_[1] = 0;
        L4J_ASSERT_OK(L4J_RUN(lora_forward, call.context().queue(), &args)(error));
        L4J_ASSERT_OK(L4J_RUN(lora_backward, call.context().queue(), &args)(error));
        Call fresh(second, values, isa, 1, rows, {0, 1, 2}, true);
        fresh.run();
        for (size_t g = 0; g < 2; g++) ASSERT_TRUE(l4j::same_bits(fresh.y[g].floats(), call.y[g].floats()));
        ASSERT_TRUE(l4j::same_bits(fresh.dx.floats(), call.dx.floats()));
        for (size_t i = 0; i < fresh.da.size(); i++) {
            if (!fresh.da[i].get()->data) continue;
            ASSERT_TRUE(l4j::same_bits(fresh.da[i].floats(), call.da[i].floats())) << i;
            ASSERT_TRUE(l4j::same_bits(fresh.db[i].floats(), call.db[i].floats())) << i;
        }
    }
}

TEST(LoraSegmentsTest, RefusesSegmentsThatDoNotFit) {
    struct {
        const char *message;
        void (*damage)(Call &, l4j_lora &);
    } cases[] = {
        {"segment_count is 6, expected 0 to segment_capacity = 4", [](Call &c, l4j_lora &) { c.live_ = 6; }},
        {"segment_count is -1", [](Call &c, l4j_lora &) { c.live_ = -1; }},
        {"segment_offsets[0] and [1] are 1 and 10; expected offsets that start at 0",
         [](Call &c, l4j_lora &) { c.offsets_[0] = 1; }},
        {"segment_offsets[1] and [2] are 24 and 23", [](Call &c, l4j_lora &) { c.offsets_[1] = 24; }},
        {"the segments end at row 22, but x has 23 rows", [](Call &c, l4j_lora &) { c.offsets_[2] = 22; }},
        {"the segments end at row 10, but x has 23 rows", [](Call &c, l4j_lora &) { c.live_ = 1; }},
        {"the segments end at row 0, but x has 23 rows", [](Call &c, l4j_lora &) { c.live_ = 0; }},
        {"segment_adapters[1] is 3, expected -1 to 2", [](Call &c, l4j_lora &) { c.segment_adapters_[1] = 3; }},
        {"segment_adapters[0] is -2, expected -1 to 2", [](Call &c, l4j_lora &) { c.segment_adapters_[0] = -2; }},
        {"segment_capacity is -1, expected at least 0", [](Call &, l4j_lora &a) { a.segment_capacity = -1; }},
        {"segment_count is NULL", [](Call &, l4j_lora &a) { a.segment_count = nullptr; }},
        {"segment_offsets is NULL", [](Call &, l4j_lora &a) { a.segment_offsets = nullptr; }},
        {"segment_adapters is NULL", [](Call &, l4j_lora &a) { a.segment_adapters = nullptr; }},
        {"adapter_count is 3 but segment_capacity is 0", [](Call &, l4j_lora &a) { a.segment_capacity = 0; }},
        {"adapter_count is 65537, expected 0 to 65536", [](Call &, l4j_lora &a) { a.adapter_count = 65537; }},
        {"s[0] is F32 [23, 33], expected F32 [23, 16]",
         [](Call &c, l4j_lora &a) {
             const_cast<l4j_tensor *>(a.a)[4].shape[0] = 16, (void)c, const_cast<l4j_tensor *>(a.b)[4].shape[1] = 16;
         }},
        {"scaling[4] is inf", [](Call &, l4j_lora &a) { const_cast<float *>(a.scaling)[4] = HUGE_VALF; }},
    };
    for (auto &bad : cases) {
        Spec spec;
        spec.segments = {{10, 0}, {13, 1}};
        Values values(spec);
        std::vector<int64_t> rows;
        for (int64_t m = 0; m < 23; m++) rows.push_back(m);
        for (int32_t isa : l4j::tiers()) {
            Call call(spec, values, isa, 2, rows, {0, 1, 2}, true);
            l4j_lora args = call.args();
            bad.damage(call, args);
            l4j_error error = {};
            l4j_status status = L4J_RUN(lora_forward, call.context().queue(), &args)(&error);
            EXPECT_EQ(L4J_EINVAL, status) << bad.message;
            EXPECT_NE(nullptr, strstr(error.message, bad.message)) << error.message << "\nexpected: " << bad.message;
            EXPECT_TRUE(is_poison(call.y[0].floats(), 0));
        }
    }
}

} // namespace
