#include "support.h"

namespace {

// The specification's structs, written again here: the test is a consumer and producer of its own.
struct DLTensor {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};
struct DLManagedTensor {
    DLTensor tensor;
    void *context;
    void (*deleter)(DLManagedTensor *);
};
struct DLManagedTensorVersioned {
    struct {
        uint32_t major, minor;
    } version;
    void *context;
    void (*deleter)(DLManagedTensorVersioned *);
    uint64_t flags;
    DLTensor tensor;
};

int deleted = 0;

TEST(DlpackTest, ImportIsAViewAndDeletesOnRelease) {
    float values[24];
    int64_t shape[] = {2, 3}, strides[] = {12, 2};
    DLManagedTensor managed = {
        {values, {1, 0}, 2, {2, 32, 1}, shape, strides, 8}, nullptr, [](DLManagedTensor *) { deleted++; }};
    l4j::Context context(L4J_ISA_REF);
    l4j_import *import = nullptr;
    l4j_tensor t = {};
    L4J_ASSERT_OK(l4j_dlpack_import(&managed, 0, &import, &t, error));
    EXPECT_EQ(values + 2, t.data);
    EXPECT_EQ(L4J_F32, t.dtype);
    EXPECT_EQ(2, t.ndim);
    EXPECT_EQ(3, t.shape[1]);
    EXPECT_EQ(12, t.stride[0]);
    EXPECT_EQ(2, t.stride[1]);
    deleted = 0;
    L4J_ASSERT_OK(l4j_dlpack_release(import, context.queue(), error));
    EXPECT_EQ(1, deleted);
}

TEST(DlpackTest, ContiguousWithoutStrides) {
    uint16_t values[6];
    int64_t shape[] = {2, 3};
    DLManagedTensorVersioned managed = {
        {1, 3}, nullptr, nullptr, 0, {values, {1, 0}, 2, {4, 16, 1}, shape, nullptr, 0}};
    l4j_import *import = nullptr;
    l4j_tensor t = {};
    L4J_ASSERT_OK(l4j_dlpack_import(&managed, 1, &import, &t, error));
    EXPECT_EQ(L4J_BF16, t.dtype);
    EXPECT_EQ(3, t.stride[0]);
    EXPECT_EQ(1, t.stride[1]);
    L4J_ASSERT_OK(l4j_dlpack_release(import, nullptr, error));
}

// A GPU's memory keeps its device both ways; pinned memory counts as the host's. Nothing reads the values, so no GPU is needed.
TEST(DlpackTest, MemoryOfAGpu) {
    float values[6];
    l4j_tensor t = l4j::tensor(values, L4J_F32, {2, 3}), back = {};
    t.device_type = L4J_DEVICE_CUDA;
    t.device_id = 3;
    void *managed = nullptr;
    l4j_import *import = nullptr;
    L4J_ASSERT_OK(l4j_dlpack_export(&t, nullptr, &managed, error));
    auto *dl = static_cast<DLManagedTensorVersioned *>(managed);
    EXPECT_EQ(2, dl->tensor.device.type);
    EXPECT_EQ(3, dl->tensor.device.id);
    L4J_ASSERT_OK(l4j_dlpack_import(managed, 1, &import, &back, error));
    EXPECT_EQ(0, memcmp(&t, &back, sizeof t));
    L4J_ASSERT_OK(l4j_dlpack_release(import, nullptr, error));

    int64_t shape[] = {2, 3};
    DLManagedTensor pinned = {{values, {3, 1}, 2, {2, 32, 1}, shape, nullptr, 0}, nullptr, nullptr};
    L4J_ASSERT_OK(l4j_dlpack_import(&pinned, 0, &import, &back, error));
    EXPECT_EQ(L4J_DEVICE_CPU, back.device_type);
    EXPECT_EQ(0, back.device_id);
    L4J_ASSERT_OK(l4j_dlpack_release(import, nullptr, error));
}

TEST(DlpackTest, WhatIsNotUnderstoodIsRefused) {
    float values[4];
    int64_t shape[] = {1, 1, 1, 2, 2};
    l4j_import *import = nullptr;
    l4j_tensor t = {};
    l4j_error error = {};
    DLManagedTensor managed = {{values, {4, 0}, 2, {2, 32, 1}, shape, nullptr, 0}, nullptr, nullptr};
    EXPECT_EQ(L4J_EDEVICE, l4j_dlpack_import(&managed, 0, &import, &t, &error));
    EXPECT_STREQ("dlpack_import: the tensor lies on DLPack device type 4, expected the CPU (1) or CUDA (2)",
                 error.message);
    managed.tensor.device.type = 13;
    EXPECT_EQ(L4J_EDEVICE, l4j_dlpack_import(&managed, 0, &import, &t, &error));
    EXPECT_NE(nullptr, strstr(error.message, "managed CUDA memory (DLPack device type 13)")) << error.message;
    managed.tensor.device = {2, -1};
    EXPECT_EQ(L4J_EDEVICE, l4j_dlpack_import(&managed, 0, &import, &t, &error));
    EXPECT_STREQ("dlpack_import: the tensor's device id is -1, expected 0 or more", error.message);
    managed.tensor.device = {1, 0};
    managed.tensor.ndim = 5;
    EXPECT_EQ(L4J_ENOTSUP, l4j_dlpack_import(&managed, 0, &import, &t, &error));
    managed.tensor.ndim = 2;
    int64_t negative[] = {-1, 2};
    managed.tensor.shape = negative;
    EXPECT_EQ(L4J_EINVAL, l4j_dlpack_import(&managed, 0, &import, &t, &error));
    EXPECT_STREQ("dlpack_import: size 0 of the shape is -1, expected 0 or more, at most 2^40 elements", error.message);
    managed.tensor.shape = shape;
    managed.tensor.dtype.lanes = 4;
    EXPECT_EQ(L4J_ENOTSUP, l4j_dlpack_import(&managed, 0, &import, &t, &error));
    EXPECT_STREQ("dlpack_import: DLPack type {code 2, bits 32, lanes 4} is not supported", error.message);
    DLManagedTensorVersioned versioned = {{2, 0}, nullptr, nullptr, 0, managed.tensor};
    EXPECT_EQ(L4J_ENOTSUP, l4j_dlpack_import(&versioned, 1, &import, &t, &error));
    EXPECT_EQ(L4J_EINVAL, l4j_dlpack_import(nullptr, 1, &import, &t, &error));
    EXPECT_EQ(nullptr, import);
}

TEST(DlpackTest, ExportLivesUntilTheConsumerDeletesIt) {
    float values[6];
    l4j_tensor t = l4j::tensor(values, L4J_F32, {2, 3});
    int32_t released = 7;
    void *managed = nullptr;
    L4J_ASSERT_OK(l4j_dlpack_export(&t, &released, &managed, error));
    EXPECT_EQ(0, released);
    auto *dl = static_cast<DLManagedTensorVersioned *>(managed);
    EXPECT_EQ(1u, dl->version.major);
    EXPECT_EQ(values, dl->tensor.data);
    EXPECT_EQ(2, dl->tensor.ndim);
    EXPECT_EQ(2, dl->tensor.dtype.code);
    EXPECT_EQ(32, dl->tensor.dtype.bits);
    EXPECT_EQ(3, dl->tensor.strides[0]);
    dl->deleter(dl);
    EXPECT_EQ(1, released);
}

TEST(DlpackTest, WhatCannotBeExportedIsRefused) {
    float values[6];
    l4j_tensor t = l4j::tensor(values, L4J_F32, {2, 3});
    void *managed = &t;
    l4j_error error = {};
    t.device_id = 1;
    EXPECT_EQ(L4J_EDEVICE, l4j_dlpack_export(&t, nullptr, &managed, &error));
    EXPECT_STREQ("dlpack_export: the tensor lies on device type 1, id 1, expected the CPU or a GPU", error.message);
    EXPECT_EQ(nullptr, managed);
    t.device_id = 0;
    t.shape[1] = -3;
    EXPECT_EQ(L4J_EINVAL, l4j_dlpack_export(&t, nullptr, &managed, &error));
    EXPECT_STREQ("dlpack_export: size 1 of the shape is -3, expected 0 or more", error.message);
    t.shape[1] = 3;
    t.dtype = 11;
    EXPECT_EQ(L4J_EINVAL, l4j_dlpack_export(&t, nullptr, &managed, &error));
    EXPECT_STREQ("dlpack_export: the tensor is dtype 11 [2, 3] in 2 dimensions, expected a known dtype and 1 to 4",
                 error.message);
}

// Every dtype, size 0, strides of 0 and backwards and an offset survive the way out and in again.
TEST(DlpackTest, RoundTrip) {
    double values[64] = {};
    for (int32_t dtype = L4J_F32; dtype <= L4J_BOOL; dtype++) {
        l4j_tensor t = l4j::tensor(values + 30, dtype, {2, 3, 0, 4}), back = {};
        t.stride[0] = -7;
        t.stride[1] = 0;
        void *managed = nullptr;
        int32_t released = 0;
        l4j_import *import = nullptr;
        L4J_ASSERT_OK(l4j_dlpack_export(&t, &released, &managed, error));
        static_cast<DLManagedTensorVersioned *>(managed)->tensor.byte_offset = 8;
        L4J_ASSERT_OK(l4j_dlpack_import(managed, 1, &import, &back, error));
        t.data = values + 31;
        EXPECT_EQ(0, memcmp(&t, &back, sizeof t)) << dtype;
        EXPECT_EQ(0, released);
        L4J_ASSERT_OK(l4j_dlpack_release(import, nullptr, error));
        EXPECT_EQ(1, released);
    }
}

} // namespace
