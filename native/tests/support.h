// What the tests share: tiers, operands next to guard pages, poison, seeded values, comparisons.
#pragma once

#include "gpu_run.h"

#include <gtest/gtest.h>
#include <lora4j/lora4j.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

extern "C" void l4j_queue_run_alone_below(l4j_queue *queue, int64_t work); // internal

namespace l4j {

// Fails the test with the library's message when a call does not return L4J_OK.
#define L4J_ASSERT_OK(call)                                                               \
    do {                                                                                  \
        l4j_error error_ = {};                                                            \
        l4j_error *error = &error_;                                                       \
        (void)error;                                                                      \
        l4j_status status_ = (call);                                                      \
        ASSERT_EQ(L4J_OK, status_) << l4j_status_name(status_) << ": " << error_.message; \
    } while (0)

// The fp32 tiers that this CPU has, lowest first: the first is the bitwise oracle of the others.
inline std::vector<int32_t> tiers() {
    l4j_device *device = nullptr;
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    l4j_error error = {};
    if (l4j_device_open(nullptr, &device, &error) != L4J_OK) ADD_FAILURE() << error.message;
    l4j_device_query(device, &info, &error);
    l4j_device_close(device, &error);
    std::vector<int32_t> all;
    for (int32_t isa = L4J_ISA_REF; isa <= info.isa; isa++) all.push_back(isa);
    return all;
}

// These and the GPU, if there is one.
inline std::vector<int32_t> devices() {
    std::vector<int32_t> all = tiers();
    if (has_gpu()) all.push_back(L4J_ISA_CUDA);
    return all;
}

// The same for products of L4J_COMPUTE_BF16.
inline std::vector<int32_t> bf16_tiers() {
    l4j_device *device = nullptr;
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    l4j_error error = {};
    if (l4j_device_open(nullptr, &device, &error) != L4J_OK) ADD_FAILURE() << error.message;
    l4j_device_query(device, &info, &error);
    l4j_device_close(device, &error);
    std::vector<int32_t> all;
    for (int32_t isa = L4J_ISA_REF; isa <= info.bf16_isa; isa++) all.push_back(isa);
    return all;
}

inline const char *tier_name(int32_t isa) {
    static const char *const names[] = {"auto", "ref", "avx2", "avx512", "avx512-bf16", "amx-bf16"};
    return isa == L4J_ISA_CUDA ? "cuda" : isa == L4J_ISA_REF64 ? "ref64" : names[isa];
}

// A device of one tier with a queue of so many threads.
class Context {
public:
    explicit Context(int32_t isa, int threads = 1) {
        bool on_gpu = isa == L4J_ISA_CUDA;
        if (on_gpu) threads = 0;
        l4j_device_options device_options = {};
        device_options.struct_size = sizeof device_options;
        device_options.device_type = on_gpu ? L4J_DEVICE_CUDA : L4J_DEVICE_CPU;
        device_options.max_isa = on_gpu ? L4J_ISA_AUTO : isa;
        l4j_queue_options queue_options = {};
        queue_options.struct_size = sizeof queue_options;
        queue_options.threads = threads;
        l4j_error error = {};
        if (l4j_device_open(&device_options, &device_, &error) != L4J_OK) ADD_FAILURE() << error.message;
        if (l4j_queue_create(device_, &queue_options, &queue_, &error) != L4J_OK) ADD_FAILURE() << error.message;
        // Small operands too go over all threads: see QueueTest.LittleWorkGivesTheSameBits for the other way.
        if (queue_) l4j_queue_run_alone_below(queue_, 0);
        if (on_gpu) gpu_queues()[queue_] = device_;
    }
    Context(const Context &) = delete;
    ~Context() {
        l4j_error error = {};
        gpu_queues().erase(queue_);
        l4j_queue_destroy(queue_, &error);
        if (l4j_device_close(device_, &error) != L4J_OK) ADD_FAILURE() << error.message;
    }
    l4j_device *device() const { return device_; }
    l4j_queue *queue() const { return queue_; }

private:
    l4j_device *device_ = nullptr;
    l4j_queue *queue_ = nullptr;
};

// Memory whose end (or begin) touches a page that may not be read or written; filled with 0xFF bytes (NaN as a float).
class Guarded {
public:
    enum Side { kAfter, kBefore };
    explicit Guarded(size_t bytes, Side side = kAfter, size_t misalign = 0) : bytes_(bytes) {
        size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        size_t inner = (bytes + misalign + page - 1) / page * page;
        if (inner == 0) inner = page;
        mapped_ = inner + 2 * page;
        base_ = static_cast<char *>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(base_ + page, inner, PROT_READ | PROT_WRITE);
        memset(base_ + page, 0xFF, inner);
        data_ = side == kAfter ? base_ + page + inner - bytes : base_ + page + misalign;
    }
    Guarded(const Guarded &) = delete;
    ~Guarded() { munmap(base_, mapped_); }
    template <typename T = void> T *as() const { return reinterpret_cast<T *>(data_); }
    size_t bytes() const { return bytes_; }

private:
    char *base_, *data_;
    size_t bytes_, mapped_;
};

// Runs l4j_<op> with a workspace of exactly the size that the library asks for, poisoned, against a guard page.
#define L4J_RUN(op, queue_, args_)                                                             \
    [&](l4j_error *error_) -> l4j_status {                                                     \
        if (::l4j::gpu_queues().count(queue_))                                                 \
            return ::l4j::run_on_gpu(queue_, args_, l4j_##op##_workspace, l4j_##op, error_);   \
        size_t bytes_ = 0;                                                                     \
        l4j_status status_ = l4j_##op##_workspace(queue_, args_, &bytes_, error_);             \
        if (status_ != L4J_OK) return status_;                                                 \
        ::l4j::Guarded workspace_((bytes_ + 63) / 64 * 64);                                    \
        ::l4j::store_as_gpu(args_);                                                            \
        status_ = l4j_##op(queue_, args_, bytes_ ? workspace_.as() : nullptr, bytes_, error_); \
        ::l4j::store_as_gpu(args_);                                                            \
        return status_;                                                                        \
    }

// Uniform in [-1, 1), the same on every machine: SplitMix64.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits() {
        uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    float uniform() { return static_cast<float>(static_cast<int64_t>(bits() >> 40) - (1 << 23)) * 0x1p-23f; }
    int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
    std::vector<float> floats(int64_t n, float scale = 1.0f) {
        std::vector<float> v(static_cast<size_t>(n));
        for (float &x : v) x = rounded(scale * uniform());
        return v;
    }

private:
    uint64_t state_;
};

// Round to nearest even, as stored weights are made.
inline uint16_t to_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return static_cast<uint16_t>((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}
#if defined(__aarch64__)
using Half = __fp16; // g++ 12 does not have _Float16 here
#else
using Half = _Float16;
#endif
inline uint16_t to_f16(float x) {
    Half h = static_cast<Half>(x);
    uint16_t u;
    memcpy(&u, &h, 2);
    return u;
}

inline int64_t dtype_bytes(int32_t dtype) {
    return dtype == L4J_F64 || dtype == L4J_I64 ? 8 : dtype == L4J_F32 || dtype == L4J_I32 ? 4 : 2;
}

// A contiguous descriptor.
inline l4j_tensor tensor(void *data, int32_t dtype, std::vector<int64_t> shape) {
    l4j_tensor t = {};
    t.data = data;
    t.dtype = dtype;
    t.device_type = L4J_DEVICE_CPU;
    t.ndim = static_cast<int32_t>(shape.size());
    int64_t stride = 1;
    for (int i = t.ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[static_cast<size_t>(i)];
        t.stride[i] = stride;
        stride *= t.shape[i];
    }
    return t;
}

// A tensor in guarded memory of its own: fp32 on the fp32 tiers, fp64 on the oracle. Poisoned until it is filled. `pad` elements
// lie between rows (dimension 0) and stay poisoned.
class Operand {
public:
    Operand() = default;
    Operand(int32_t isa, std::vector<int64_t> shape, int64_t pad = 0, Guarded::Side side = Guarded::kAfter,
            size_t misalign = 0)
        : real64_(isa == L4J_ISA_REF64) {
        t_ = tensor(nullptr, real64_ ? L4J_F64 : L4J_F32, shape);
        if (t_.ndim > 1) t_.stride[0] += pad;
        int64_t elements = 1;
        for (int i = 0; i < t_.ndim; i++) {
            if (t_.shape[i] == 0) elements = 0;
            if (elements) elements += (t_.shape[i] - 1) * t_.stride[i];
        }
        memory_ = std::make_shared<Guarded>(static_cast<size_t>(elements) * (real64_ ? 8 : 4), side, misalign);
        t_.data = memory_->as();
    }
    Operand &fill(const std::vector<float> &values) {
        for (int64_t i = 0; i < size(); i++) set(i, values[static_cast<size_t>(i)]);
        return *this;
    }
    Operand &fill(double value) {
        for (int64_t i = 0; i < size(); i++) set(i, value);
        return *this;
    }
    const l4j_tensor *get() const { return &t_; }
    l4j_tensor &mutable_tensor() { return t_; }
    int64_t size() const {
        int64_t n = 1;
        for (int i = 0; i < t_.ndim; i++) n *= t_.shape[i];
        return n;
    }
    // Element i in row-major order.
    double at(int64_t i) const {
        return real64_ ? static_cast<double *>(t_.data)[offset(i)]
                       : static_cast<double>(static_cast<float *>(t_.data)[offset(i)]);
    }
    void set(int64_t i, double value) {
        if (real64_) {
            static_cast<double *>(t_.data)[offset(i)] = value;
        } else {
            static_cast<float *>(t_.data)[offset(i)] = static_cast<float>(value);
        }
    }
    std::vector<double> values() const {
        std::vector<double> v;
        for (int64_t i = 0; i < size(); i++) v.push_back(at(i));
        return v;
    }
    std::vector<float> floats() const {
        std::vector<float> v;
        for (int64_t i = 0; i < size(); i++) v.push_back(static_cast<float>(at(i)));
        return v;
    }

private:
    int64_t offset(int64_t i) const {
        int64_t at = 0;
        for (int d = t_.ndim - 1; d >= 0; d--) {
            at += i % t_.shape[d] * t_.stride[d];
            i /= t_.shape[d];
        }
        return at;
    }
    bool real64_ = false;
    l4j_tensor t_ = {};
    std::shared_ptr<Guarded> memory_;
};

inline double norm(const std::vector<double> &x) {
    double sum = 0;
    for (double v : x) sum += v * v;
    return std::sqrt(sum);
}

// ‖x − reference‖₂ / size; 0 for two zero vectors; infinite when a value is not finite.
inline double error_in(double size, const std::vector<double> &x, const std::vector<double> &reference) {
    std::vector<double> difference(reference.size());
    for (size_t i = 0; i < reference.size(); i++) {
        if (!std::isfinite(x[i])) return std::numeric_limits<double>::infinity();
        difference[i] = x[i] - reference[i];
    }
    return norm(difference) / (size > 0 ? size : 1);
}
inline double relative_error(const std::vector<double> &x, const std::vector<double> &reference,
                             const std::vector<double> &scale) {
    return error_in(norm(scale), x, reference);
}
// `squares` are added to ‖reference‖₂²: those of the terms that the values are sums of, where cancellation leaves less of the sums than the
// terms' own rounding needs.
inline double relative_error(const std::vector<double> &x, const std::vector<double> &reference, double squares = 0) {
    double size = norm(reference);
    return error_in(std::sqrt(size * size + squares), x, reference);
}

// Equal bits (a NaN differs from everything but the same NaN).
inline ::testing::AssertionResult same_bits(const std::vector<float> &a, const std::vector<float> &b) {
    if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " values against " << b.size();
    for (size_t i = 0; i < a.size(); i++) {
        if (memcmp(&a[i], &b[i], sizeof(float)) != 0) {
            return ::testing::AssertionFailure() << "element " << i << ": " << a[i] << " against " << b[i];
        }
    }
    return ::testing::AssertionSuccess();
}

// A base weight of any stored dtype with its own memory.
class TestWeight {
public:
    TestWeight(const Context &context, int64_t rows, int64_t cols, const std::vector<float> &values,
               int32_t dtype = L4J_F32, int32_t mode = L4J_WEIGHT_BORROW, int64_t pad = 0,
               int32_t compute = L4J_COMPUTE_F32)
        : memory_(
              std::make_shared<Guarded>(static_cast<size_t>(((rows - 1) * (cols + pad) + cols) * dtype_bytes(dtype)))) {
        for (int64_t n = 0; n < rows; n++) {
            for (int64_t k = 0; k < cols; k++) {
                float x = values[static_cast<size_t>(n * cols + k)];
                int64_t at = n * (cols + pad) + k;
                if (dtype == L4J_F32) memory_->as<float>()[at] = x;
                if (dtype == L4J_BF16) memory_->as<uint16_t>()[at] = to_bf16(x);
                if (dtype == L4J_F16) memory_->as<uint16_t>()[at] = to_f16(x);
            }
        }
        l4j_tensor t = tensor(memory_->as(), dtype, {rows, cols});
        t.stride[0] = cols + pad;
        auto on_gpu = gpu_queues().find(context.queue());
        if (on_gpu != gpu_queues().end() && mode == L4J_WEIGHT_BORROW) {
            device_ = on_gpu->second;
            l4j_memory_allocate(device_, memory_->bytes(), &gpu_, nullptr);
            l4j_memory_copy(context.queue(), gpu_, memory_->as(), memory_->bytes(), nullptr);
            l4j_queue_synchronize(context.queue(), nullptr);
            t.data = gpu_;
            t.device_type = L4J_DEVICE_CUDA;
        }
        int32_t role = L4J_ROLE_VALUES;
        l4j_weight_options options = {};
        options.struct_size = sizeof options;
        options.scheme = L4J_SCHEME_DENSE;
        options.mode = mode;
        options.compute = compute;
        options.rows = rows;
        options.cols = cols;
        options.part_count = 1;
        options.part_roles = &role;
        options.part_values = &t;
        l4j_error error = {};
        if (l4j_weight_create(context.device(), context.queue(), &options, &handle_, &error) != L4J_OK)
            ADD_FAILURE() << error.message;
        if (mode == L4J_WEIGHT_PACK) memory_.reset(); // the copy must be enough
    }
    TestWeight(const TestWeight &) = delete;
    ~TestWeight() {
        l4j_weight_destroy(handle_, nullptr);
        if (gpu_) l4j_memory_free(device_, gpu_, nullptr);
    }
    const l4j_weight *get() const { return handle_; }

private:
    std::shared_ptr<Guarded> memory_;
    l4j_device *device_ = nullptr; // with gpu_: a borrowed weight's values on the GPU
    void *gpu_ = nullptr;
    l4j_weight *handle_ = nullptr;
};

} // namespace l4j
