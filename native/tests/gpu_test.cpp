// What only a GPU has: memory of its own, streams, events, graphs, values that are found wrong later. The operations themselves are
// compared with the oracle by their own tests.
#include "gpu_memory.h"
#include "lora_case.h"

#include <array>
#include <chrono>

namespace {

using l4j::Context;
using l4j::GpuTest;
using l4j::Memory;
using l4j::on_gpu_memory;

TEST_F(GpuTest, Query) {
    Context context(L4J_ISA_CUDA);
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    L4J_ASSERT_OK(l4j_device_query(context.device(), &info, error));
    EXPECT_EQ(L4J_DEVICE_CUDA, info.device_type);
    EXPECT_EQ(L4J_ISA_CUDA, info.isa);
    EXPECT_EQ(0, strncmp("sm_", info.isa_name, 3)) << info.isa_name;
    EXPECT_GT(info.memory_bytes, int64_t(1) << 30);
    EXPECT_EQ(info.logical_cpus, l4j_queue_threads(context.queue()));
    printf("GPU: %s, %s, %d multiprocessors\n", info.cpu_name, info.isa_name, info.logical_cpus);
}

TEST_F(GpuTest, RefusesWhatIsNotThere) {
    l4j_device_options options = {};
    options.struct_size = sizeof options;
    options.device_type = L4J_DEVICE_CUDA;
    options.device_id = 1000;
    l4j_device *device = nullptr;
    l4j_error error = {};
    EXPECT_EQ(L4J_EINVAL, l4j_device_open(&options, &device, &error));
    EXPECT_NE(nullptr, strstr(error.message, "device_id is 1000, expected 0 to ")) << error.message;
    options.device_id = 0;
    options.max_isa = L4J_ISA_REF;
    EXPECT_EQ(L4J_EINVAL, l4j_device_open(&options, &device, &error));
    void *memory = nullptr;
    EXPECT_EQ(L4J_ENOMEM, l4j_memory_allocate(l4j::gpu().device, size_t(1) << 60, &memory, &error));
    EXPECT_NE(nullptr, strstr(error.message, "free of")) << error.message;
}

TEST_F(GpuTest, CopiesAndFills) {
    Context context(L4J_ISA_CUDA);
    Memory a(context.device(), 1000), b(context.device(), 1000);
    std::vector<char> to(1000), from(1000);
    for (size_t i = 0; i < from.size(); i++) from[i] = static_cast<char>(i);
    L4J_ASSERT_OK(l4j_memory_copy(context.queue(), a.as(), from.data(), 1000, error));
    L4J_ASSERT_OK(l4j_memory_fill(context.queue(), b.as(), 7, 1000, error));
    L4J_ASSERT_OK(l4j_memory_copy(context.queue(), b.as<char>() + 1, a.as<char>() + 1, 998, error));
    L4J_ASSERT_OK(l4j_memory_copy(context.queue(), to.data(), b.as(), 1000, error));
    L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
    from[0] = from[999] = 7;
    EXPECT_EQ(from, to);
    l4j_error error = {};
    EXPECT_EQ(L4J_EBUSY, l4j_device_close(context.device(), &error));
}

TEST_F(GpuTest, HostPointersAreRefused) {
    Context context(L4J_ISA_CUDA);
    std::vector<float> host(12);
    Memory memory(context.device(), 48);
    l4j_tensor wrong_type = l4j::tensor(host.data(), L4J_F32, {3, 4}),
               host_data = on_gpu_memory(host.data(), L4J_F32, {3, 4}),
               good = on_gpu_memory(memory.as(), L4J_F32, {3, 4});
    float one = 1;
    l4j_axpby args = {};
    args.struct_size = sizeof args;
    args.alpha = args.beta = memory.as<float>();
    l4j_error error = {};
    auto expect = [&](const l4j_tensor *x, const std::string &message) {
        args.x = x;
        args.y = &good;
        EXPECT_EQ(L4J_EDEVICE, l4j_axpby_forward(context.queue(), &args, nullptr, 0, &error));
        EXPECT_EQ("axpby_forward: " + message, error.message);
    };
    expect(&wrong_type, "x lies on device type 1, id 0; the queue's device is GPU 0");
    expect(&host_data, "x.data is not memory of GPU 0; copy it there first");
    args.alpha = &one;
    expect(&good, "alpha is not memory of GPU 0; copy it there first");
    // The other way round: the CPU refuses what is said to be the GPU's.
    Context cpu(L4J_ISA_REF);
    args.alpha = args.beta = &one;
    args.x = &good;
    EXPECT_EQ(L4J_EDEVICE, l4j_axpby_forward(cpu.queue(), &args, nullptr, 0, &error));
}

TEST_F(GpuTest, ActivationsAreOfOneDtype) {
    Context context(L4J_ISA_CUDA);
    Memory memory(context.device(), 4096);
    l4j_tensor f32 = on_gpu_memory(memory.as(), L4J_F32, {3, 4}),
               bf16 = on_gpu_memory(memory.as<char>() + 1024, L4J_BF16, {3, 4});
    l4j_swiglu args = {};
    args.struct_size = sizeof args;
    args.gate = &bf16;
    args.up = &f32;
    args.out = &bf16;
    l4j_error error = {};
    EXPECT_EQ(L4J_EINVAL, l4j_swiglu_forward(context.queue(), &args, nullptr, 0, &error));
    EXPECT_STREQ("swiglu_forward: up is F32 [3, 4], expected BF16 [3, 4]", error.message);
}

// A wrong id is reported once, when the queue has passed; nothing outside of the output is touched.
TEST_F(GpuTest, WrongValuesAreReportedLater) {
    Context context(L4J_ISA_CUDA);
    l4j::TestWeight weight(context, 3, 4, l4j::Random(1).floats(12));
    std::vector<int32_t> ids = {0, 2, 3};
    l4j::Operand out(L4J_ISA_CUDA, {3, 4}, 2);
    l4j_embedding args = {};
    args.struct_size = sizeof args;
    args.weight = weight.get();
    args.ids = ids.data();
    args.out = out.get();
    l4j_error error = {};
    EXPECT_EQ(L4J_EINVAL, L4J_RUN(embedding_forward, context.queue(), &args)(&error));
    EXPECT_STREQ("embedding: ids[2] is 3, expected 0 to 2", error.message);
    L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
    ids[2] = 1;
    L4J_ASSERT_OK(L4J_RUN(embedding_forward, context.queue(), &args)(error));

    l4j::LoraSpec spec;
    l4j::LoraCase c(spec, L4J_ISA_CUDA, 0);
    c.scaling[0] = NAN;
    l4j_lora lora = c.args();
    EXPECT_EQ(L4J_EINVAL, L4J_RUN(lora_forward, c.context().queue(), &lora)(&error));
    EXPECT_NE(nullptr, strstr(error.message, "scaling[0] is not finite")) << error.message;
}

TEST_F(GpuTest, WeightsAreCheckedAndPackedFromBothMemories) {
    Context context(L4J_ISA_CUDA);
    for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
        std::vector<float> values = l4j::Random(1).floats(35);
        values[17] = INFINITY;
        Memory memory(context.device(), 35 * 4);
        L4J_ASSERT_OK(l4j_memory_copy(context.queue(), memory.as(), values.data(), 35 * 4, error));
        l4j_tensor host = l4j::tensor(values.data(), L4J_F32, {5, 7}),
                   gpu = on_gpu_memory(memory.as(), L4J_F32, {5, 7});
        int32_t role = L4J_ROLE_VALUES;
        l4j_weight_options options = {};
        options.struct_size = sizeof options;
        options.scheme = L4J_SCHEME_DENSE;
        options.mode = mode;
        options.rows = 5;
        options.cols = 7;
        options.part_count = 1;
        options.part_roles = &role;
        for (const l4j_tensor *t : {&host, &gpu}) {
            options.part_values = t;
            l4j_weight *weight = nullptr;
            l4j_error error = {};
            l4j_status status = l4j_weight_create(context.device(), context.queue(), &options, &weight, &error);
            if (t == &host && mode == L4J_WEIGHT_BORROW) {
                EXPECT_EQ(L4J_EDEVICE, status);
            } else {
                EXPECT_EQ(L4J_ENUMERIC, status);
                EXPECT_STREQ("weight_create: value [2, 3] is NaN or Inf; expected finite weights", error.message);
            }
            EXPECT_EQ(nullptr, weight);
        }
    }
}

TEST_F(GpuTest, QuantizingIsRefusedByName) {
    Context context(L4J_ISA_CUDA);
    l4j_quantize args = {};
    args.struct_size = sizeof args;
    size_t bytes = 0;
    l4j_error error = {};
    EXPECT_EQ(L4J_ENOTSUP, l4j_quantize_forward_workspace(context.queue(), &args, &bytes, &error));
}

TEST_F(GpuTest, EventsOrderTwoQueues) {
    Context first(L4J_ISA_CUDA);
    l4j_queue *second = nullptr;
    L4J_ASSERT_OK(l4j_queue_create(first.device(), nullptr, &second, error));
    const size_t bytes = size_t(256) << 20;
    {
        Memory a(first.device(), bytes), b(first.device(), bytes);
        l4j_event *start = nullptr, *end = nullptr;
        L4J_ASSERT_OK(l4j_event_create(first.device(), &start, error));
        L4J_ASSERT_OK(l4j_event_create(first.device(), &end, error));
        for (int value = 1; value < 20; value++) {
            L4J_ASSERT_OK(l4j_event_record(start, first.queue(), error));
            L4J_ASSERT_OK(l4j_memory_fill(first.queue(), a.as(), value, bytes, error));
            L4J_ASSERT_OK(l4j_event_record(end, first.queue(), error));
            L4J_ASSERT_OK(l4j_event_wait(end, second, error));
            L4J_ASSERT_OK(l4j_memory_copy(second, b.as(), a.as(), bytes, error));
            char last = 0;
            L4J_ASSERT_OK(l4j_memory_copy(second, &last, b.as<char>() + bytes - 1, 1, error));
            L4J_ASSERT_OK(l4j_queue_synchronize(second, error));
            ASSERT_EQ(value, last);
        }
        L4J_ASSERT_OK(l4j_event_synchronize(end, error));
        float ms = -1;
        L4J_ASSERT_OK(l4j_event_elapsed(start, end, &ms, error));
        EXPECT_GT(ms, 0.0f);
        EXPECT_LT(ms, 1000.0f);
        L4J_ASSERT_OK(l4j_event_destroy(start, error));
        L4J_ASSERT_OK(l4j_event_destroy(end, error));
    }
    L4J_ASSERT_OK(l4j_queue_destroy(second, error));
}

// One recorded call replays with what its pointers lead to now.
TEST_F(GpuTest, GraphsReplayWithNewValues) {
    Context context(L4J_ISA_CUDA);
    Memory x(context.device(), 4000), y(context.device(), 4000), factors(context.device(), 8);
    std::vector<float> ones(1000, 1.0f), got(1000);
    L4J_ASSERT_OK(l4j_memory_copy(context.queue(), x.as(), ones.data(), 4000, error));
    L4J_ASSERT_OK(l4j_memory_fill(context.queue(), y.as(), 0, 4000, error));
    L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
    l4j_tensor tx = on_gpu_memory(x.as(), L4J_F32, {10, 100}), ty = on_gpu_memory(y.as(), L4J_F32, {10, 100});
    l4j_axpby args = {};
    args.struct_size = sizeof args;
    args.alpha = factors.as<float>();
    args.beta = factors.as<float>() + 1;
    args.x = &tx;
    args.y = &ty;
    l4j_graph *graph = nullptr;
    L4J_ASSERT_OK(l4j_graph_begin(context.queue(), error));
    L4J_ASSERT_OK(l4j_axpby_forward(context.queue(), &args, nullptr, 0, error));
    L4J_ASSERT_OK(l4j_graph_end(context.queue(), &graph, error));
    float expected = 0;
    for (float alpha : {2.0f, 3.0f, -5.0f}) {
        float values[2] = {alpha, 0.5f};
        L4J_ASSERT_OK(l4j_memory_copy(context.queue(), factors.as(), values, 8, error));
        L4J_ASSERT_OK(l4j_graph_launch(graph, context.queue(), error));
        L4J_ASSERT_OK(l4j_memory_copy(context.queue(), got.data(), y.as(), 4000, error));
        L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
        expected = alpha + 0.5f * expected;
        for (float v : got) ASSERT_EQ(expected, v);
    }
    L4J_ASSERT_OK(l4j_graph_destroy(graph, error));
}

// ---- the low-rank linear at sizes of models ----

TEST_F(GpuTest, LoraIsAccurateAtModelSizes) {
    for (int32_t dtype : {L4J_BF16, L4J_F16}) {
        l4j::gpu_dtype() = dtype;
        l4j::LoraSpec spec;
        spec.M = 300;
        spec.K = 576;
        spec.N = {1536, 192};
        spec.R = {16, 8};
        spec.dtype = dtype;
        spec.p = 0.1f;
        l4j::LoraCase exact(spec, L4J_ISA_REF64, 2), c(spec, L4J_ISA_CUDA, 0);
        for (l4j::LoraCase *each : {&exact, &c}) {
            each->forward();
            each->backward();
        }
        auto wanted = exact.outputs(), got = c.outputs();
        for (size_t i = 0; i < got.size(); i++) {
            double e = l4j::relative_error(got[i].second->values(), wanted[i].second->values());
            printf("  %s %s: %.2e\n", dtype == L4J_BF16 ? "BF16" : "F16", got[i].first.c_str(), e);
            EXPECT_LT(e, 2.5e-3) << got[i].first;
        }
    }
    l4j::gpu_dtype() = L4J_F32;
}

// Shapes that choose each tile of the product on a GPU of some hundred multiprocessors, forward or backward, and cuBLASLt where it is,
// which rounds the low-rank part on its own; contractions are short, so that a sanitizer gets through.
TEST_F(GpuTest, EveryTileIsAccurate) {
    for (auto [M, K, N] : std::vector<std::array<int64_t, 3>>{{2000, 64, 1800},
                                                              {2000, 1800, 64},
                                                              {1000, 72, 1608},
                                                              {1000, 1608, 72},
                                                              {640, 64, 648},
                                                              {640, 648, 64},
                                                              {64, 264, 136},
                                                              {256, 1024, 1024}}) {
        l4j::gpu_dtype() = L4J_BF16;
        l4j::LoraSpec spec;
        spec.M = M;
        spec.K = K;
        spec.N = {N};
        spec.R = {8};
        spec.p = N > K ? 0.0f : 0.1f;
        spec.dtype = L4J_BF16;
        l4j::LoraCase exact(spec, L4J_ISA_REF64, 2), c(spec, L4J_ISA_CUDA, 0);
        for (l4j::LoraCase *each : {&exact, &c}) {
            each->forward();
            each->backward();
        }
        auto wanted = exact.outputs(), got = c.outputs();
        for (size_t i = 0; i < got.size(); i++) {
            EXPECT_LT(l4j::relative_error(got[i].second->values(), wanted[i].second->values()),
                      M == 256 ? 4e-3 : 2.5e-3)
                << got[i].first << " of " << M << " rows, " << K << " to " << N;
        }
    }
    l4j::gpu_dtype() = L4J_F32;
}

// Seven rows have the same bits alone and at the head of 8, 64, 65 and 2048.
TEST_F(GpuTest, RowsDoNotDependOnTheBatch) {
    for (int32_t dtype : {L4J_F32, L4J_BF16}) {
        l4j::gpu_dtype() = dtype;
        std::vector<float> alone, alone_dx;
        for (int64_t M : {7, 8, 64, 65, 2048}) {
            l4j::LoraSpec spec;
            spec.M = M;
            spec.K = 200;
            spec.N = {136};
            spec.R = {8};
            spec.p = 0.2f;
            spec.dtype = dtype;
            spec.weight_seed = 3;
            l4j::LoraCase c(spec, L4J_ISA_CUDA, 0);
            std::vector<float> x = l4j::Random(5).floats(M * 200), dy = l4j::Random(6).floats(M * 136);
            c.x.fill(x);
            c.dy[0].fill(dy);
            c.a[0].fill(l4j::Random(7).floats(8 * 200));
            c.b[0].fill(l4j::Random(8).floats(8 * 136));
            c.forward();
            c.backward();
            std::vector<float> y = c.y[0].floats(), dx = c.dx.floats();
            y.resize(7 * 136);
            dx.resize(7 * 200);
            if (M == 7) {
                alone = y;
                alone_dx = dx;
            }
            EXPECT_TRUE(l4j::same_bits(alone, y)) << M;
            EXPECT_TRUE(l4j::same_bits(alone_dx, dx)) << M;
        }
    }
    l4j::gpu_dtype() = L4J_F32;
}

TEST_F(GpuTest, AThousandRunsGiveTheSameBits) {
    for (int32_t dtype : {L4J_F32, L4J_BF16}) {
        l4j::gpu_dtype() = dtype;
        l4j::LoraSpec spec;
        spec.M = 1100;
        spec.K = 96;
        spec.N = {72};
        spec.R = {8};
        spec.p = 0.1f;
        spec.dtype = dtype;
        l4j::LoraCase c(spec, L4J_ISA_CUDA, 0);
        l4j::check_runs(c, 1000);
    }
    l4j::gpu_dtype() = L4J_F32;
}

// The masks of the CPU: x = 1, A = identity, so that s shows what is kept.
TEST_F(GpuTest, DropoutDrawsTheBitsOfTheCpu) {
    for (int32_t dtype : {L4J_F32, L4J_BF16, L4J_F16}) {
        l4j::gpu_dtype() = dtype;
        l4j::LoraSpec spec;
        spec.M = 70;
        spec.K = 130;
        spec.N = {4};
        spec.R = {130};
        spec.p = 0.25f;
        l4j::LoraCase c(spec, L4J_ISA_CUDA, 0);
        c.x.fill(1.0);
        for (int64_t r = 0; r < 130; r++) {
            for (int64_t k = 0; k < 130; k++) c.a[0].set(r * 130 + k, r == k ? 1 : 0);
        }
        c.forward();
        for (int64_t m = 0; m < 70; m++) {
            std::vector<uint16_t> bits(130);
            L4J_ASSERT_OK(l4j_philox_mask16(c.seed, c.step, c.token_index[static_cast<size_t>(m)], c.module_id[0],
                                            c.adapter_id, 130, bits.data(), error));
            for (int64_t k = 0; k < 130; k++) {
                ASSERT_EQ(bits[static_cast<size_t>(k)] >= 16384, c.s[0].at(m * 130 + k) != 0) << m << ", " << k;
            }
        }
    }
    l4j::gpu_dtype() = L4J_F32;
}

} // namespace
