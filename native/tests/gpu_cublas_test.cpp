// The low-rank linear whose base product is cuBLASLt's, and the kernels beside it (src/cuda/lora_stream.cuh), at shapes that they take.
#include "gpu_memory.h"
#include "lora_case.h"

#include <dlfcn.h>

namespace {

using l4j::LoraCase;
using l4j::LoraSpec;

// As src/cuda/cublas.cu looks for it.
bool has_cublas() {
    const char *given = getenv("LORA4J_CUBLAS");
    if (given && *given) return strcmp(given, "off") != 0 && dlopen(given, RTLD_NOW | RTLD_LOCAL);
    return dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL) || dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL);
}

class GpuCublasTest : public l4j::GpuTest {
protected:
    void SetUp() override {
        GpuTest::SetUp();
        if (!IsSkipped() && !has_cublas())
            GTEST_SKIP() << "no cuBLASLt: LORA4J_CUBLAS may be the path of libcublasLt.so";
    }
    void TearDown() override { l4j::gpu_dtype() = L4J_F32; }
};

// Rows and columns that end inside of every tile.
LoraSpec ragged(int64_t rank, float p, int32_t dtype) {
    LoraSpec spec;
    spec.M = 1061;
    spec.K = 1096;
    spec.N = {1544};
    spec.R = {rank};
    spec.p = p;
    spec.dtype = dtype;
    return spec;
}

// Against the CPU's fastest tier in fp32: the shapes are too large for the oracle, whose place it takes in lora_test.
void check_accuracy(const LoraSpec &spec) {
    SCOPED_TRACE(l4j::describe(spec, L4J_ISA_CUDA, 0));
    l4j::gpu_dtype() = spec.dtype;
    LoraCase exact(spec, l4j::tiers().back(), 4), c(spec, L4J_ISA_CUDA, 0);
    for (LoraCase *each : {&exact, &c}) {
        each->forward();
        each->backward();
    }
    auto wanted = exact.outputs(), got = c.outputs();
    for (size_t i = 0; i < got.size(); i++) {
        EXPECT_LE(l4j::relative_error(got[i].second->values(), wanted[i].second->values()),
                  spec.dtype == L4J_BF16 ? 4.5e-3 : 6e-4)
            << got[i].first;
    }
}

TEST_F(GpuCublasTest, EveryRankAndTheMasks) {
    for (int32_t dtype : {L4J_BF16, L4J_F16}) {
        check_accuracy(ragged(16, 0, dtype));
        check_accuracy(ragged(16, 0.2f, dtype));
        check_accuracy(ragged(32, 0.2f, dtype));
    }
    for (int64_t rank : {5, 8, 24, 40}) check_accuracy(ragged(rank, 0.1f, L4J_BF16));
}

TEST_F(GpuCublasTest, SumsAddToWhatIsThereAndRowsMayLieApart) {
    for (float p : {0.0f, 0.3f}) {
        LoraSpec spec = ragged(16, p, L4J_BF16);
        spec.flags = L4J_LORA_ACCUMULATE_GRADS | L4J_LORA_ACCUMULATE_DX;
        spec.pad = 8;
        check_accuracy(spec);
        spec.pad = 3; // 16 bytes cannot be copied at once: the kernels for any operands
        check_accuracy(spec);
    }
}

TEST_F(GpuCublasTest, GroupsAndWhatIsWanted) {
    LoraSpec group = ragged(16, 0.2f, L4J_BF16);
    group.N = {1544, 1024, 1032};
    group.R = {16, 0, 8};
    check_accuracy(group);
    LoraSpec input_only = ragged(16, 0.2f, L4J_BF16);
    input_only.grads = false;
    check_accuracy(input_only);
    LoraSpec grads_only = ragged(16, 0.2f, L4J_BF16);
    grads_only.dx = false;
    check_accuracy(grads_only);
}

TEST_F(GpuCublasTest, ManyRunsGiveTheSameBits) {
    for (float p : {0.0f, 0.1f}) {
        l4j::gpu_dtype() = L4J_BF16;
        LoraSpec spec = ragged(16, p, L4J_BF16);
        spec.M = 2064;
        LoraCase c(spec, L4J_ISA_CUDA, 0);
        l4j::check_runs(c, 30);
    }
}

// Without a base product: dx is zero where the mask drops, and s shows the mask of the columns that A picks.
TEST_F(GpuCublasTest, MasksAreThoseOfTheCpu) {
    l4j::gpu_dtype() = L4J_BF16;
    LoraSpec spec = ragged(16, 0.25f, L4J_BF16);
    LoraCase c(spec, L4J_ISA_CUDA, 0);
    l4j::TestWeight nothing(c.context(), spec.N[0], spec.K, std::vector<float>(static_cast<size_t>(spec.N[0] * spec.K)),
                            L4J_BF16, L4J_WEIGHT_BORROW, 0, L4J_COMPUTE_F32);
    c.use_weight(0, nothing.get());
    c.x.fill(1.0);
    c.a[0].fill(1.0);
    c.backward(); // s is anything
    std::vector<std::vector<uint16_t>> bits;
    for (int64_t m = 0; m < spec.M; m++) {
        bits.emplace_back(static_cast<size_t>(spec.K));
        L4J_ASSERT_OK(l4j_philox_mask16(c.seed, c.step, c.token_index[static_cast<size_t>(m)], c.module_id[0],
                                        c.adapter_id, spec.K, bits.back().data(), error));
        for (int64_t k = 0; k < spec.K; k++) {
            ASSERT_EQ(bits.back()[static_cast<size_t>(k)] >= 16384, c.dx.at(m * spec.K + k) != 0) << m << ", " << k;
        }
    }
    for (int64_t first = 0; first < spec.K; first += 16 * 9) {
        c.a[0].fill(0.0);
        auto column = [&](int64_t r) { return (first + 9 * r) % spec.K; };
        for (int64_t r = 0; r < 16; r++) c.a[0].set(r * spec.K + column(r), 1);
        c.forward();
        for (int64_t m = 0; m < spec.M; m++) {
            for (int64_t r = 0; r < 16; r++) {
                bool kept = bits[static_cast<size_t>(m)][static_cast<size_t>(column(r))] >= 16384;
                ASSERT_EQ(kept, c.s[0].at(m * 16 + r) != 0) << m << ", " << column(r);
            }
        }
    }
}

} // namespace
