// Quantized weights on a GPU: decoded with the bits of the CPU into every dtype, multiplied with the bits of the decoded weight (but few
// rows in BF16, whose sums have another order), in chunks, groups and graphs. The operations' accuracy is checked by quant_product_test.
#include "gpu_memory.h"
#include "lora_case.h"
#include "quant_case.h"

namespace {

using l4j::Context;
using l4j::LoraCase;
using l4j::LoraSpec;
using l4j::Memory;
using l4j::Parts;
using l4j::QuantWeight;

class GpuQuantTest : public l4j::GpuTest {
protected:
    void TearDown() override { l4j::gpu_dtype() = L4J_F32; }
};

std::vector<float> decoded(const Parts &parts) {
    Context reference(L4J_ISA_REF);
    QuantWeight weight(reference, parts, L4J_WEIGHT_BORROW);
    return l4j::dequantized(reference, L4J_ISA_REF, weight.get(), 0, parts.rows, parts.cols).floats();
}

// All schemes, twice: NF4, FP4 with and without double quantization, GPTQ with and without act-order.
std::vector<Parts> every_scheme(int64_t rows, int64_t cols) {
    std::vector<Parts> all;
    for (auto &scheme : l4j::schemes()) {
        for (uint64_t seed : {2, 3}) all.push_back(l4j::random_parts(scheme.first, rows, cols, seed));
    }
    return all;
}

TEST_F(GpuQuantTest, DecodesIntoEveryDtype) {
    Context context(L4J_ISA_CUDA);
    for (int64_t cols : {96, 256, 1056, 77}) {
        for (Parts &parts : every_scheme(37, cols)) {
            SCOPED_TRACE("scheme " + std::to_string(parts.scheme) + " columns " + std::to_string(parts.cols));
            std::vector<float> expected = decoded(parts);
            QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
            int64_t begin = 5, rows = parts.rows - begin;
            for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
                for (int64_t pad : {0, 8, 3}) {
                    size_t size = dtype == L4J_F32 ? 4 : 2;
                    int64_t ld = parts.cols + pad;
                    std::vector<char> got(static_cast<size_t>(rows * ld) * size);
                    Memory memory(context.device(), got.size());
                    L4J_ASSERT_OK(l4j_memory_fill(context.queue(), memory.as(), 0xFF, got.size(), error));
                    l4j_tensor out = l4j::on_gpu_memory(memory.as(), dtype, {rows, parts.cols});
                    out.stride[0] = ld;
                    l4j_dequantize args = {};
                    args.struct_size = sizeof args;
                    args.weight = weight.get();
                    args.row_begin = begin;
                    args.out = &out;
                    L4J_ASSERT_OK(l4j_dequantize_forward(context.queue(), &args, nullptr, 0, error));
                    L4J_ASSERT_OK(l4j_memory_copy(context.queue(), got.data(), memory.as(), got.size(), error));
                    L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
                    for (int64_t n = 0; n < rows; n++) {
                        for (int64_t k = 0; k < ld; k++) {
                            uint8_t wanted[4] = {255, 255, 255, 255}; // between rows all is as before
                            if (k < parts.cols) {
                                float w = expected[static_cast<size_t>((begin + n) * parts.cols + k)];
                                uint16_t h = dtype == L4J_F32 ? uint16_t(0) : l4j::narrow(w, dtype);
                                memcpy(wanted, dtype == L4J_F32 ? static_cast<void *>(&w) : &h, size);
                            }
                            ASSERT_EQ(0, memcmp(wanted, &got[static_cast<size_t>(n * ld + k) * size], size))
                                << "dtype " << dtype << " pad " << pad << " value " << n << ", " << k;
                        }
                    }
                }
            }
        }
    }
}

// The outputs of two cases of one spec: bit by bit, but y and dx where their sums have another order.
void expect_same(LoraCase &got, LoraCase &wanted, bool other_order) {
    for (LoraCase *c : {&got, &wanted}) {
        c->forward();
        c->backward();
    }
    auto a = got.outputs(), b = wanted.outputs();
    for (size_t i = 0; i < a.size(); i++) {
        if (other_order && (a[i].first[0] == 'y' || a[i].first == "dx")) {
            EXPECT_LT(l4j::relative_error(a[i].second->values(), b[i].second->values()), 4e-3) << a[i].first;
        } else {
            EXPECT_TRUE(l4j::same_bits(a[i].second->floats(), b[i].second->floats())) << a[i].first;
        }
    }
}

// A group of projections on quantized weights beside the same on their decoded values.
void check_group(LoraSpec spec, const std::vector<Parts> &parts, bool other_order = false) {
    LoraCase coded(spec, L4J_ISA_CUDA, 0), dense(spec, L4J_ISA_CUDA, 0);
    std::vector<std::unique_ptr<QuantWeight>> own;
    std::vector<std::unique_ptr<l4j::TestWeight>> same;
    for (size_t g = 0; g < parts.size(); g++) {
        if (!parts[g].scheme) { // stays dense
            same.push_back(std::make_unique<l4j::TestWeight>(dense.context(), spec.N[g], spec.K,
                                                             l4j::Random(9).floats(spec.N[g] * spec.K, 0.05f)));
            dense.use_weight(g, same.back()->get());
            same.push_back(std::make_unique<l4j::TestWeight>(coded.context(), spec.N[g], spec.K,
                                                             l4j::Random(9).floats(spec.N[g] * spec.K, 0.05f)));
            coded.use_weight(g, same.back()->get());
            continue;
        }
        own.push_back(std::make_unique<QuantWeight>(coded.context(), parts[g], L4J_WEIGHT_PACK));
        coded.use_weight(g, own.back()->get());
        same.push_back(std::make_unique<l4j::TestWeight>(dense.context(), spec.N[g], spec.K, decoded(parts[g])));
        dense.use_weight(g, same.back()->get());
    }
    expect_same(coded, dense, other_order);
}

class GpuQuantProductTest : public GpuQuantTest,
                            public ::testing::WithParamInterface<std::pair<int32_t, const char *>> {};

// On both sides of every border between kernels.
TEST_P(GpuQuantProductTest, HasTheBitsOfTheDecodedWeight) {
    for (int64_t cols : {160, 512}) {
        Parts parts = l4j::random_parts(GetParam().first, 136, cols, 3);
        for (int32_t dtype : {L4J_BF16, L4J_F16, L4J_F32}) {
            l4j::gpu_dtype() = dtype;
            for (int64_t M : {1, 8, 9, 32, 33, 64, 65}) {
                for (auto [pad, segmented] : {std::pair(0, false), {3, false}, {0, true}}) {
                    if (segmented && (dtype != L4J_BF16 || M > 64)) continue; // as without
                    SCOPED_TRACE("dtype " + std::to_string(dtype) + " M " + std::to_string(M) + " pad " +
                                 std::to_string(pad) + (segmented ? " in a segment" : ""));
                    LoraSpec spec;
                    spec.M = M;
                    spec.K = parts.cols;
                    spec.N = {parts.rows};
                    spec.R = {8};
                    spec.bias = L4J_F32;
                    spec.p = M % 2 ? 0.2f : 0;
                    spec.pad = pad;
                    spec.flags = M % 2 ? L4J_LORA_ACCUMULATE_DX : 0;
                    spec.segmented = segmented;
                    check_group(spec, {parts}, dtype == L4J_BF16 && M <= 64 && !segmented);
                    if (HasFailure()) return;
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Schemes, GpuQuantProductTest, ::testing::ValuesIn(l4j::schemes()),
                         [](const auto &info) { return std::string(info.param.second); });

// Weights of which the scratch holds a part: N · K · 2 bytes are more than twice its size.
TEST_F(GpuQuantTest, TakesLargeWeightsInChunks) {
    for (int32_t dtype : {L4J_BF16, L4J_F32}) {
        l4j::gpu_dtype() = dtype;
        LoraSpec spec;
        spec.M = 70;
        spec.K = 4096;
        spec.N = {4104};
        spec.R = {16};
        spec.bias = L4J_BF16;
        spec.p = 0.1f;
        check_group(spec, {l4j::random_parts(L4J_SCHEME_NF4, 4104, 4096, 3)});
    }
}

// Groups of one format, of several, and with a dense weight among them.
TEST_F(GpuQuantTest, TakesGroupsOfProjections) {
    Parts nf4 = l4j::random_parts(L4J_SCHEME_NF4, 72, 256, 3), plain = l4j::random_parts(L4J_SCHEME_NF4, 40, 256, 2),
          q4k = l4j::random_parts(L4J_SCHEME_GGUF_Q4_K, 56, 256, 4), dense = Parts();
    for (int32_t dtype : {L4J_BF16, L4J_F32}) {
        l4j::gpu_dtype() = dtype;
        for (int64_t M : {3, 20, 100}) {
            for (auto &group : std::vector<std::vector<Parts>>{{nf4, plain}, {nf4, q4k}, {plain, dense, q4k}}) {
                LoraSpec spec;
                spec.M = M;
                spec.K = 256;
                spec.N.clear();
                spec.R.clear();
                bool one_format = group.size() == 2 && group[1].scheme == group[0].scheme;
                for (const Parts &p : group) {
                    spec.N.push_back(p.scheme ? p.rows : 24);
                    spec.R.push_back(spec.N.size() == 1 ? 0 : 8);
                }
                spec.p = 0.3f;
                SCOPED_TRACE("M " + std::to_string(M) + " of " + std::to_string(group.size()));
                check_group(spec, group, dtype == L4J_BF16 && M <= 64 && one_format);
            }
        }
    }
}

// Each run of a call has the same bits, by whichever kernel.
TEST_F(GpuQuantTest, RunsGiveTheSameBits) {
    l4j::gpu_dtype() = L4J_BF16;
    Parts parts = l4j::random_parts(L4J_SCHEME_NF4, 320, 1024, 3);
    for (int64_t M : {1, 16, 64, 130}) {
        LoraSpec spec;
        spec.M = M;
        spec.K = 1024;
        spec.N = {320};
        spec.R = {16};
        LoraCase c(spec, L4J_ISA_CUDA, 0);
        QuantWeight weight(c.context(), parts, L4J_WEIGHT_PACK);
        c.use_weight(0, weight.get());
        l4j::check_runs(c, 200);
    }
}

// The first rows of a call have the same bits whatever other rows there are: with segments always, without within each of the two
// kinds of few rows, and among more.
TEST_F(GpuQuantTest, RowsDoNotDependOnTheBatch) {
    l4j::gpu_dtype() = L4J_BF16;
    Parts parts = l4j::random_parts(L4J_SCHEME_GGUF_Q8_0, 136, 224, 3);
    auto first_rows = [&](int64_t M, int64_t rows, bool segmented) {
        LoraSpec spec;
        spec.M = M;
        spec.K = 224;
        spec.N = {136};
        spec.R = {8};
        spec.p = 0.2f;
        spec.segmented = segmented;
        LoraCase c(spec, L4J_ISA_CUDA, 0);
        QuantWeight weight(c.context(), parts, L4J_WEIGHT_PACK);
        c.use_weight(0, weight.get());
        c.x.fill(l4j::Random(5).floats(M * 224));
        c.dy[0].fill(l4j::Random(6).floats(M * 136));
        c.a[0].fill(l4j::Random(7).floats(8 * 224));
        c.b[0].fill(l4j::Random(8).floats(136 * 8));
        c.forward();
        c.backward();
        std::vector<float> y = c.y[0].floats(), dx = c.dx.floats();
        y.resize(static_cast<size_t>(rows * 136));
        y.insert(y.end(), dx.begin(), dx.begin() + rows * 224);
        return y;
    };
    auto same = [&](const std::vector<int64_t> &Ms, bool segmented) {
        std::vector<float> alone = first_rows(Ms[0], Ms[0], segmented);
        for (int64_t M : Ms) EXPECT_TRUE(l4j::same_bits(alone, first_rows(M, Ms[0], segmented))) << M;
    };
    same({7, 8, 64, 65, 2048}, true);
    same({1, 3, 8}, false);
    same({9, 16, 17, 64}, false);
    same({65, 255}, false);
}

TEST_F(GpuQuantTest, IsAccurateAtModelSizes) {
    for (int32_t dtype : {L4J_BF16, L4J_F16}) {
        l4j::gpu_dtype() = dtype;
        Parts parts = l4j::random_parts(L4J_SCHEME_NF4, 1536, 576, 3);
        for (int64_t M : {1, 4, 16, 64, 300}) {
            LoraSpec spec;
            spec.M = M;
            spec.K = 576;
            spec.N = {1536};
            spec.R = {16};
            LoraCase exact(spec, L4J_ISA_REF64, 2), c(spec, L4J_ISA_CUDA, 0);
            QuantWeight exact_weight(exact.context(), parts, L4J_WEIGHT_PACK),
                weight(c.context(), parts, L4J_WEIGHT_PACK);
            exact.use_weight(0, exact_weight.get());
            c.use_weight(0, weight.get());
            for (LoraCase *each : {&exact, &c}) {
                // A small adapter, as otherwise y is the rounding of the few values of s and says nothing about the weight.
                each->b[0].fill(l4j::Random(2).floats(1536 * 16, 0.01f));
                each->forward();
                each->backward();
            }
            auto wanted = exact.outputs(), got = c.outputs();
            for (size_t i = 0; i < got.size(); i++) {
                double e = l4j::relative_error(got[i].second->values(), wanted[i].second->values());
                printf("  %s M %d %s: %.2e\n", dtype == L4J_BF16 ? "BF16" : "F16", static_cast<int>(M),
                       got[i].first.c_str(), e);
                EXPECT_LT(e, 2.5e-3) << got[i].first; // the weight's rounding and the output's
            }
        }
    }
}

// A recorded call reads its rows anew, by each of the three ways.
TEST_F(GpuQuantTest, GraphsReplay) {
    Context context(L4J_ISA_CUDA);
    Parts parts = l4j::random_parts(L4J_SCHEME_NF4, 64, 128, 3);
    QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
    for (int64_t M : {2, 20, 80}) {
        size_t bytes = static_cast<size_t>(M) * 128 * 2, out_bytes = static_cast<size_t>(M) * 64 * 2;
        Memory x(context.device(), bytes), y(context.device(), out_bytes);
        l4j_tensor tx = l4j::on_gpu_memory(x.as(), L4J_BF16, {M, 128}),
                   ty = l4j::on_gpu_memory(y.as(), L4J_BF16, {M, 64});
        l4j_lora args = {};
        args.struct_size = sizeof args;
        args.projection_count = 1;
        args.x = &tx;
        const l4j_weight *handle = weight.get();
        args.weights = &handle;
        args.y = &ty;
        size_t scratch_bytes = 0;
        L4J_ASSERT_OK(l4j_lora_forward_workspace(context.queue(), &args, &scratch_bytes, error));
        EXPECT_EQ(M > 8, scratch_bytes > 0);
        Memory scratch(context.device(), scratch_bytes);
        auto forward = [&](l4j_error *error) {
            return l4j_lora_forward(context.queue(), &args, scratch.as(), scratch_bytes, error);
        };
        L4J_ASSERT_OK(forward(error)); // kernels are loaded before they are recorded
        l4j_graph *graph = nullptr;
        L4J_ASSERT_OK(l4j_graph_begin(context.queue(), error));
        L4J_ASSERT_OK(forward(error));
        L4J_ASSERT_OK(l4j_graph_end(context.queue(), &graph, error));
        for (uint64_t step = 1; step <= 3; step++) {
            std::vector<uint16_t> values, wanted(out_bytes / 2), got(out_bytes / 2);
            for (float v : l4j::Random(step).floats(M * 128)) values.push_back(l4j::to_bf16(v));
            L4J_ASSERT_OK(l4j_memory_copy(context.queue(), x.as(), values.data(), bytes, error));
            L4J_ASSERT_OK(forward(error));
            L4J_ASSERT_OK(l4j_memory_copy(context.queue(), wanted.data(), y.as(), out_bytes, error));
            L4J_ASSERT_OK(l4j_memory_fill(context.queue(), y.as(), 0xFF, out_bytes, error));
            L4J_ASSERT_OK(l4j_graph_launch(graph, context.queue(), error));
            L4J_ASSERT_OK(l4j_memory_copy(context.queue(), got.data(), y.as(), out_bytes, error));
            L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
            EXPECT_EQ(wanted, got) << M << " rows, step " << step;
        }
        L4J_ASSERT_OK(l4j_graph_destroy(graph, error));
    }
}

TEST_F(GpuQuantTest, HoldsWhatItReads) {
    Context context(L4J_ISA_CUDA);
    for (Parts &parts : every_scheme(64, 512)) {
        int64_t stored = 0;
        for (auto &memory : parts.memory) stored += static_cast<int64_t>(memory->bytes());
        QuantWeight weight(context, parts, L4J_WEIGHT_PACK);
        l4j_weight_info info = {};
        info.struct_size = sizeof info;
        L4J_ASSERT_OK(l4j_weight_query(weight.get(), &info, error));
        EXPECT_EQ(parts.scheme, info.scheme);
        // Blocks are padded to whole words (at most 3 bytes of 17), GPTQ and AWQ have fp32 scales.
        EXPECT_GE(info.bytes_held, parts.rows * parts.cols / 4);
        EXPECT_LE(info.bytes_held, stored * 20 / 17 + 64 * 11 + 64 * 4 * 5) << parts.scheme;
    }
}

TEST_F(GpuQuantTest, RefusesWhatItCannotRead) {
    Context context(L4J_ISA_CUDA);
    auto refused = [&](const Parts &p, int32_t mode, l4j_status expected) {
        l4j_weight_options o = p.options(mode);
        l4j_weight *weight = nullptr;
        l4j_error error = {};
        EXPECT_EQ(expected, l4j_weight_create(context.device(), context.queue(), &o, &weight, &error));
        EXPECT_EQ(nullptr, weight);
        return std::string(error.message);
    };
    Parts nf4 = l4j::random_parts(L4J_SCHEME_NF4, 9, 100, 2);
    EXPECT_EQ(0u,
              refused(nf4, L4J_WEIGHT_BORROW, L4J_ENOTSUP)
                  .find("weight_create: mode is L4J_WEIGHT_BORROW and the scheme is NF4; expected L4J_WEIGHT_PACK"));
    Memory memory(context.device(), 4096);
    Parts there = nf4;
    there.of(L4J_ROLE_VALUES).data = memory.as();
    there.of(L4J_ROLE_VALUES).device_type = L4J_DEVICE_CUDA;
    EXPECT_NE(std::string::npos,
              refused(there, L4J_WEIGHT_PACK, L4J_EDEVICE).find("VALUES lies on device type 2, id 0; "));
    static_cast<float *>(nf4.of(L4J_ROLE_SCALES).data)[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ("weight_create: value [1, 92] is NaN or Inf; expected finite weights",
              refused(nf4, L4J_WEIGHT_PACK, L4J_ENUMERIC));
    Parts q8 = l4j::random_parts(L4J_SCHEME_GGUF_Q8_0, 9, 96, 1);
    static_cast<uint16_t *>(q8.of(L4J_ROLE_VALUES).data)[(7 * 3 + 1) * 17] = 0x7C00;
    EXPECT_EQ("weight_create: value [7, 32] is NaN or Inf; expected finite weights",
              refused(q8, L4J_WEIGHT_PACK, L4J_ENUMERIC));
    QuantWeight allowed(context, q8, L4J_WEIGHT_PACK, L4J_WEIGHT_ALLOW_NONFINITE);
    EXPECT_NE(nullptr, allowed.get());
}

} // namespace
