// What the tests of a GPU alone share: its memory, tensors there, the skip where there is none.
#pragma once

#include "support.h"

namespace l4j {

class GpuTest : public ::testing::Test {
protected:
    void SetUp() override {
        if (!has_gpu()) GTEST_SKIP() << gpu().missing;
    }
};

// A block of a device's memory.
class Memory {
public:
    Memory(l4j_device *device, size_t bytes) : device_(device) {
        l4j_error error = {};
        if (l4j_memory_allocate(device, bytes, &memory_, &error) != L4J_OK) ADD_FAILURE() << error.message;
    }
    Memory(const Memory &) = delete;
    ~Memory() { l4j_memory_free(device_, memory_, nullptr); }
    template <class T = void> T *as() const { return static_cast<T *>(memory_); }

private:
    l4j_device *device_;
    void *memory_ = nullptr;
};

inline l4j_tensor on_gpu_memory(void *data, int32_t dtype, std::vector<int64_t> shape) {
    l4j_tensor t = tensor(data, dtype, std::move(shape));
    t.device_type = L4J_DEVICE_CUDA;
    return t;
}

} // namespace l4j
