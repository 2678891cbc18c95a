#include "support.h"

#include <fstream>

namespace {

std::string cpu_flags() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("flags", 0) == 0) return line + " ";
    }
    return "";
}

bool has(const std::string &flags, const char *flag) {
    return flags.find(std::string(" ") + flag + " ") != std::string::npos;
}

// What the instructions for bf16 make of a tier. Linux grants every process AMX's tiles unless an administrator forbids it.
int32_t best_bf16_isa(int32_t isa) {
    std::string flags = cpu_flags();
    if (isa != L4J_ISA_AVX512) return isa;
    if (has(flags, "amx_bf16") && has(flags, "amx_tile")) return L4J_ISA_AMX_BF16;
    return has(flags, "avx512_bf16") ? L4J_ISA_AVX512_BF16 : isa;
}

// What the instructions for bytes make of a tier under a cap of the instructions for bf16.
int32_t best_int8_isa(int32_t isa, int32_t cap) {
    std::string flags = cpu_flags();
    int32_t best = best_bf16_isa(isa), bf16 = std::min(cap, best);
    if (bf16 < L4J_ISA_AVX512 || isa != L4J_ISA_AVX512) return std::min(cap, isa);
    if ((bf16 == L4J_ISA_AVX512 && bf16 < best) || !has(flags, "avx512_vnni")) return L4J_ISA_AVX512;
    return bf16 == L4J_ISA_AMX_BF16 && has(flags, "amx_int8") ? L4J_ISA_AMX_INT8 : L4J_ISA_AVX512_VNNI;
}

l4j_device_info query(int32_t max_isa) {
    l4j_device_options options = {};
    options.struct_size = sizeof options;
    options.device_type = L4J_DEVICE_CPU;
    options.max_isa = max_isa;
    l4j_device *device = nullptr;
    l4j_error error = {};
    EXPECT_EQ(L4J_OK, l4j_device_open(&options, &device, &error)) << error.message;
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    EXPECT_EQ(L4J_OK, l4j_device_query(device, &info, &error)) << error.message;
    EXPECT_EQ(L4J_OK, l4j_device_close(device, &error));
    return info;
}

// The tier is what the operating system's own list of CPU flags calls for, as far as the build has it.
TEST(DeviceTest, BestTierIsWhatTheCpuHas) {
    std::string flags = cpu_flags();
    if (flags.empty()) GTEST_SKIP() << "no CPU flags in /proc/cpuinfo";
    int32_t expected = L4J_ISA_REF;
    if (has(flags, "avx2") && has(flags, "fma") && has(flags, "f16c")) expected = L4J_ISA_AVX2;
    if (expected == L4J_ISA_AVX2 && has(flags, "avx512f") && has(flags, "avx512bw") && has(flags, "avx512dq") &&
        has(flags, "avx512vl"))
        expected = L4J_ISA_AVX512;
    if (!strstr(l4j_build_info(), " avx2")) expected = L4J_ISA_REF; // LORA4J_REF_ONLY, aarch64
    EXPECT_EQ(expected, query(L4J_ISA_AUTO).best_isa);
    EXPECT_EQ(best_bf16_isa(expected), query(L4J_ISA_AMX_BF16).bf16_isa);
    EXPECT_EQ(best_int8_isa(expected, L4J_ISA_AMX_BF16), query(L4J_ISA_AUTO).int8_isa);
}

TEST(DeviceTest, OptionCapsTheTier) {
    int32_t best = query(L4J_ISA_AUTO).best_isa;
    for (int32_t cap : {L4J_ISA_REF, L4J_ISA_AVX2, L4J_ISA_AVX512, L4J_ISA_AVX512_BF16, L4J_ISA_AMX_BF16}) {
        l4j_device_info info = query(cap);
        EXPECT_EQ(std::min(cap, best), info.isa);
        EXPECT_EQ(std::min(cap, best_bf16_isa(best)), info.bf16_isa);
        EXPECT_EQ(best_int8_isa(best, cap), info.int8_isa);
        EXPECT_STREQ(l4j::tier_name(info.isa), info.isa_name);
    }
    EXPECT_EQ(L4J_ISA_REF64, query(L4J_ISA_REF64).isa);
    EXPECT_EQ(L4J_ISA_REF64, query(L4J_ISA_REF64).bf16_isa);
    EXPECT_EQ(L4J_ISA_REF64, query(L4J_ISA_REF64).int8_isa);
    l4j_device_options options = {};
    options.struct_size = sizeof options;
    options.device_type = L4J_DEVICE_CPU;
    l4j_device *device = nullptr;
    l4j_error error = {};
    for (int32_t named : {L4J_ISA_AVX512_VNNI, L4J_ISA_AMX_INT8}) { // by a device, and no caps
        options.max_isa = named;
        EXPECT_EQ(L4J_EINVAL, l4j_device_open(&options, &device, &error));
    }
}

TEST(DeviceTest, EnvironmentCapsTheTier) {
    const char *old = getenv("LORA4J_MAX_ISA");
    std::string saved = old ? old : "";
    setenv("LORA4J_MAX_ISA", "ref", 1);
    EXPECT_EQ(L4J_ISA_REF, query(L4J_ISA_AUTO).isa);
    EXPECT_EQ(L4J_ISA_REF, query(L4J_ISA_AVX2).isa);
    int32_t best = query(L4J_ISA_AUTO).best_isa;
    const struct {
        const char *name;
        int32_t isa;
    } caps[] = {{"avx512", L4J_ISA_AVX512}, {"avx512-bf16", L4J_ISA_AVX512_BF16}, {"amx-bf16", L4J_ISA_AMX_BF16}};
    for (auto &cap : caps) { // what denies the process the tiles of AMX ends here too
        setenv("LORA4J_MAX_ISA", cap.name, 1);
        l4j_device_info info = query(L4J_ISA_AUTO);
        EXPECT_EQ(best, info.isa) << cap.name;
        EXPECT_EQ(std::min(cap.isa, best_bf16_isa(best)), info.bf16_isa) << cap.name;
        EXPECT_EQ(best_int8_isa(best, cap.isa), info.int8_isa) << cap.name;
    }
    setenv("LORA4J_MAX_ISA", "sse", 1);
    l4j_device *device = nullptr;
    l4j_error error = {};
    EXPECT_EQ(L4J_EINVAL, l4j_device_open(nullptr, &device, &error));
    EXPECT_STREQ("environment LORA4J_MAX_ISA is \"sse\", expected ref, avx2, avx512, avx512-bf16 or amx-bf16",
                 error.message);
    if (old)
        setenv("LORA4J_MAX_ISA", saved.c_str(), 1);
    else
        unsetenv("LORA4J_MAX_ISA");
}

TEST(DeviceTest, TellsAboutTheMachine) {
    l4j_device_info info = query(L4J_ISA_AUTO);
    EXPECT_GE(info.logical_cpus, 1);
    EXPECT_GT(info.memory_bytes, 1 << 20);
    EXPECT_GT(strlen(info.cpu_name), 0u);
}

TEST(DeviceTest, RefusesUnknownStructs) {
    l4j_error error = {};
    l4j_device *device = nullptr;
    l4j_device_options options = {};
    options.struct_size = 4;
    EXPECT_EQ(L4J_EABI, l4j_device_open(&options, &device, &error));
    options.struct_size = sizeof options;
    options.device_type = L4J_DEVICE_CPU;
    options.reserved[3] = 1;
    EXPECT_EQ(L4J_EINVAL, l4j_device_open(&options, &device, &error));
    EXPECT_STREQ("device_open: reserved[3] is not zero", error.message);
    options.reserved[3] = 0;
    options.device_type = 9;
    EXPECT_EQ(L4J_ENOTSUP, l4j_device_open(&options, &device, &error));
    EXPECT_STREQ("device_open: device type 9, id 0; expected the CPU (type 1, id 0) or a GPU (type 2)", error.message);
    EXPECT_EQ(nullptr, device);
    EXPECT_EQ(L4J_EINVAL, l4j_device_open(nullptr, nullptr, &error));
    EXPECT_EQ(L4J_EINVAL, l4j_device_open(nullptr, nullptr, nullptr)); // a message is not required
}

TEST(DeviceTest, VersionsAgree) {
    EXPECT_EQ(static_cast<uint32_t>(L4J_ABI_VERSION), l4j_abi_version());
    EXPECT_NE(nullptr, strstr(l4j_build_info(), l4j_version_string()));
    EXPECT_STREQ("L4J_EWORKSPACE", l4j_status_name(L4J_EWORKSPACE));
    EXPECT_STREQ("unknown", l4j_status_name(99));
}

// Small and big blocks can be written from end to end; big ones start on a huge page; the device stays open until all are freed.
TEST(DeviceTest, Memory) {
    l4j::Context context(L4J_ISA_AUTO);
    l4j_error error = {};
    for (size_t bytes : {size_t(0), size_t(1), size_t(63), size_t(4096), size_t(4 << 20), size_t((8 << 20) + 5)}) {
        void *memory = nullptr;
        L4J_ASSERT_OK(l4j_memory_allocate(context.device(), bytes, &memory, error));
        ASSERT_NE(nullptr, memory);
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(memory) % (bytes >= (4 << 20) ? 2 << 20 : 64)) << bytes;
        memset(memory, 1, bytes);
        L4J_ASSERT_OK(l4j_memory_free(context.device(), memory, error));
    }
    L4J_ASSERT_OK(l4j_memory_free(context.device(), nullptr, error));
    void *memory = &error;
    EXPECT_EQ(L4J_ENOMEM, l4j_memory_allocate(context.device(), SIZE_MAX, &memory, &error));
    EXPECT_EQ(nullptr, memory);
    EXPECT_STREQ("memory_allocate: no memory for 18446744073709551615 bytes", error.message);
    EXPECT_EQ(L4J_EINVAL, l4j_memory_allocate(nullptr, 1, &memory, &error));
    EXPECT_STREQ("memory_allocate: device is NULL", error.message);
    EXPECT_EQ(L4J_EINVAL, l4j_memory_free(nullptr, &error, &error));
    EXPECT_STREQ("memory_free: device is NULL", error.message);

    l4j_device *device = nullptr;
    L4J_ASSERT_OK(l4j_device_open(nullptr, &device, error));
    L4J_ASSERT_OK(l4j_memory_allocate(device, 8, &memory, error));
    EXPECT_EQ(L4J_EBUSY, l4j_device_close(device, &error));
    L4J_ASSERT_OK(l4j_memory_free(device, memory, error));
    L4J_ASSERT_OK(l4j_device_close(device, error));
}

} // namespace
