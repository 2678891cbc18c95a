// Operations of a GPU on operands in the host's guarded memory: before one each block that its arguments name is copied to memory of its
// own on the GPU, and afterwards back, so that whatever is written beside an output shows up as it does on the CPU.
#pragma once

#include "gpu.h"

#include <cstdlib>
#include <deque>

namespace l4j {

// Blocks of the host's memory with a copy on the GPU. Overlapping ones share it. Blocks of activations are converted.
class GpuCopies {
public:
    GpuCopies(l4j_queue *queue, int32_t dtype) : queue_(queue), device_(gpu_queues()[queue]), dtype_(dtype) {}
    GpuCopies(const GpuCopies &) = delete;
    ~GpuCopies() {
        for (auto &[begin, block] : blocks_) {
            l4j_memory_free(device_, block.gpu, nullptr);
            l4j_memory_free(device_, block.kept, nullptr);
        }
        for (void *p : extra_) l4j_memory_free(device_, p, nullptr);
    }

    void name(const void *memory, size_t bytes, bool activation) {
        if (!memory || bytes == 0) return;
        const char *begin = static_cast<const char *>(memory), *end = begin + bytes;
        for (auto it = blocks_.begin(); it != blocks_.end();) {
            const char *other_end = it->first + it->second.bytes;
            if (it->first < end && begin < other_end) {
                activation |= it->second.activation;
                begin = std::min(begin, it->first);
                end = std::max(end, other_end);
                it = blocks_.erase(it);
            } else {
                ++it;
            }
        }
        blocks_[begin] =
            Block{static_cast<size_t>(end - begin), activation && dtype_ != L4J_F32, nullptr, nullptr, {}, {}};
    }

    bool upload() {
        for (auto &[begin, block] : blocks_) {
            size_t bytes = block.activation ? block.bytes / 2 : block.bytes;
            block.gpu = allocate(bytes, false);
            if (!block.gpu) return false;
            block.host.resize(bytes);
            if (block.activation) {
                for (size_t i = 0; i < block.bytes / 4; i++) {
                    float x;
                    memcpy(&x, begin + 4 * i, 4);
                    uint16_t u = narrow(x, dtype_);
                    uint32_t bits;
                    memcpy(&bits, &x, 4);
                    if (bits == 0xFFFFFFFFu) u = 0xFFFF; // poison stays poison
                    memcpy(block.host.data() + 2 * i, &u, 2);
                }
            } else {
                memcpy(block.host.data(), begin, bytes);
            }
            block.before = block.host;
            if (l4j_memory_copy(queue_, block.gpu, block.host.data(), bytes, nullptr) != L4J_OK) return false;
        }
        return true;
    }
    void download() {
        for (auto &[begin, block] : blocks_) {
            l4j_memory_copy(queue_, block.host.data(), block.gpu, block.host.size(), nullptr);
            l4j_queue_synchronize(queue_, nullptr);
            char *to = const_cast<char *>(begin);
            size_t unit = block.activation ? 2 : 1;
            for (size_t i = 0; i + unit <= block.host.size(); i += unit) {
                if (memcmp(&block.host[i], &block.before[i], unit) == 0) continue; // only what was written
                if (!block.activation) {
                    to[i] = block.host[i];
                } else {
                    uint16_t u;
                    memcpy(&u, &block.host[i], 2);
                    float x = widen(u, dtype_);
                    memcpy(to + 2 * i, &x, 4);
                }
            }
        }
    }
    // For further runs: what was there before the first one, again.
    void keep() {
        for (auto &[begin, block] : blocks_) {
            block.kept = allocate(block.host.size(), false);
            l4j_memory_copy(queue_, block.kept, block.gpu, block.host.size(), nullptr);
        }
    }
    void restore() {
        for (auto &[begin, block] : blocks_) l4j_memory_copy(queue_, block.gpu, block.kept, block.host.size(), nullptr);
    }
    // Whether all bytes are those that download() has found.
    bool same() {
        bool same = true;
        for (auto &[begin, block] : blocks_) {
            std::vector<char> now(block.host.size());
            l4j_memory_copy(queue_, now.data(), block.gpu, now.size(), nullptr);
            l4j_queue_synchronize(queue_, nullptr);
            same &= now == block.host;
        }
        return same;
    }
    void *at(const void *memory) {
        const char *p = static_cast<const char *>(memory);
        for (auto &[begin, block] : blocks_) {
            if (p < begin || p >= begin + block.bytes) continue;
            size_t offset = static_cast<size_t>(p - begin);
            return static_cast<char *>(block.gpu) + (block.activation ? offset / 2 : offset);
        }
        return allocate(1, true); // nothing is read or written
    }
    bool converted(const void *memory) const {
        const char *p = static_cast<const char *>(memory);
        for (auto &[begin, block] : blocks_) {
            if (p >= begin && p < begin + block.bytes) return block.activation;
        }
        return dtype_ != L4J_F32;
    }
    void *allocate(size_t bytes, bool keep) {
        void *memory = nullptr;
        l4j_error error = {};
        if (l4j_memory_allocate(device_, bytes, &memory, &error) != L4J_OK) ADD_FAILURE() << error.message;
        if (keep && memory) extra_.push_back(memory);
        return memory;
    }
    int32_t dtype() const { return dtype_; }

private:
    struct Block {
        size_t bytes;
        bool activation;
        void *gpu, *kept; // as it is, and as it was before the first run where there are several
        std::vector<char> host, before;
    };
    l4j_queue *queue_;
    l4j_device *device_;
    int32_t dtype_;
    std::map<const char *, Block> blocks_;
    std::vector<void *> extra_;
};

// First every block is named, then every pointer is exchanged.
class GpuVisitor {
public:
    GpuVisitor(GpuCopies &copies, bool exchange) : copies_(copies), exchange_(exchange) {}

    template <class T> void pointer(T *&p, int64_t count) {
        if (!p) return;
        if (exchange_) {
            p = static_cast<T *>(copies_.at(p));
        } else {
            copies_.name(p, sizeof(T) * static_cast<size_t>(std::max<int64_t>(count, 0)), false);
        }
    }
    void activation(const l4j_tensor *&t) { one(t, true); }
    void sum(const l4j_tensor *&t) { one(t, false); }
    void stored(const l4j_tensor *&t) { one(t, false); }
    void activation_list(const l4j_tensor *&list, int64_t n) { many(list, n, true); }
    void sum_list(const l4j_tensor *&list, int64_t n) { many(list, n, false); }
    void stored_list(const l4j_tensor *&list, int64_t n) { many(list, n, false); }
    void groups(const l4j_adamw_group *&list, int64_t n) {
        if (!list) return;
        std::vector<l4j_adamw_group> copy(list, list + std::max<int64_t>(n, 0));
        for (l4j_adamw_group &g : copy) {
            for (auto t : {&g.params, &g.grads, &g.exp_avgs, &g.exp_avg_sqs, &g.exp_avg_scales, &g.exp_avg_sq_scales})
                many(*t, g.tensor_count, false);
            pointer(g.hyper, 1);
            pointer(g.grad_norm, 1);
        }
        if (!exchange_) return;
        groups_.push_back(std::move(copy));
        list = groups_.back().data();
    }

private:
    void one(const l4j_tensor *&t, bool activation) { many(t, 1, activation); }
    void many(const l4j_tensor *&list, int64_t n, bool activation) {
        if (!list) return;
        std::vector<l4j_tensor> copy;
        for (int64_t i = 0; i < n; i++) {
            l4j_tensor t = list[i];
            tensor(t, activation);
            copy.push_back(t);
        }
        if (!exchange_) return;
        tensors_.push_back(std::move(copy));
        list = tensors_.back().data();
    }
    void tensor(l4j_tensor &t, bool activation) {
        if (!t.data || t.ndim < 1 || t.ndim > 4) return;
        int64_t bytes = t.dtype == L4J_F32 || t.dtype == L4J_I32 ? 4
                        : t.dtype == L4J_U8                      ? 1
                                                                 : 2,
                low = 0, high = 0, elements = 1;
        for (int i = 0; i < t.ndim; i++) {
            elements *= std::max<int64_t>(t.shape[i], 0);
            int64_t reach = (t.shape[i] - 1) * t.stride[i];
            (reach < 0 ? low : high) += reach;
        }
        if (!exchange_) {
            if (elements > 0) {
                copies_.name(static_cast<char *>(t.data) + low * bytes, static_cast<size_t>((high - low + 1) * bytes),
                             activation);
            }
            return;
        }
        if (activation && t.dtype == L4J_F32 && copies_.converted(t.data)) t.dtype = copies_.dtype();
        if (t.device_type == L4J_DEVICE_CPU) t.device_type = L4J_DEVICE_CUDA;
        t.data = copies_.at(t.data);
    }
    GpuCopies &copies_;
    bool exchange_;
    std::deque<std::vector<l4j_tensor>> tensors_;
    std::deque<std::vector<l4j_adamw_group>> groups_;
};

// How often each operation runs from the same operands; every time all that it writes must have the same bits.
inline int gpu_runs() {
    static const int runs = [] {
        const char *given = getenv("LORA4J_TEST_GPU_RUNS");
        return given ? atoi(given) : 1;
    }();
    return runs;
}

// Runs an operation on the GPU with arguments in the host's memory; waits for it.
template <class Args>
l4j_status run_on_gpu(l4j_queue *queue, const Args *args,
                      l4j_status (*workspace)(const l4j_queue *, const Args *, size_t *, l4j_error *),
                      l4j_status (*run)(l4j_queue *, const Args *, void *, size_t, l4j_error *), l4j_error *error) {
    GpuCopies copies(queue, gpu_dtype());
    Args own = *args;
    GpuVisitor name(copies, false);
    visit(own, name);
    if (!copies.upload()) {
        ADD_FAILURE() << "operands cannot be copied to the GPU";
        return L4J_EINTERNAL;
    }
    GpuVisitor exchange(copies, true);
    visit(own, exchange);
    size_t bytes = 0;
    l4j_status status = workspace(queue, &own, &bytes, error);
    if (status != L4J_OK) return status;
    void *scratch = bytes ? copies.allocate(bytes, true) : nullptr;
    if (bytes) l4j_memory_fill(queue, scratch, 0xFF, bytes, nullptr);
    if (gpu_runs() > 1) copies.keep();
    status = run(queue, &own, scratch, bytes, error);
    l4j_status later = l4j_queue_synchronize(queue, status == L4J_OK ? error : nullptr);
    copies.download();
    if (status != L4J_OK || later != L4J_OK) return status == L4J_OK ? later : status;
    for (int i = 1; i < gpu_runs(); i++) {
        copies.restore();
        if (bytes) l4j_memory_fill(queue, scratch, 0xFF, bytes, nullptr);
        status = run(queue, &own, scratch, bytes, error);
        if (status == L4J_OK) status = l4j_queue_synchronize(queue, error);
        if (status != L4J_OK) return status;
        if (copies.same()) continue;
        ADD_FAILURE() << "run " << i + 1 << " of an operation has other bits than the first";
        break;
    }
    return L4J_OK;
}

} // namespace l4j
