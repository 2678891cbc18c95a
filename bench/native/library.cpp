#include "library.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>

#include "quantized.h"

void must(l4j_status status, const l4j_error &error) {
    if (status != L4J_OK) throw std::runtime_error(std::string(l4j_status_name(status)) + ": " + error.message);
}

l4j_device *device() {
    static l4j_device *opened = [] {
        l4j_device *made = nullptr;
        l4j_error error = {};
        must(l4j_device_open(nullptr, &made, &error), error);
        return made;
    }();
    return opened;
}

l4j_device_info device_info() {
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    l4j_error error = {};
    must(l4j_device_query(device(), &info, &error), error);
    return info;
}

int threads_of(const Spec &spec) {
    static const int32_t cpus = device_info().logical_cpus;
    return static_cast<int>(spec.number("threads", cpus));
}

l4j_queue *queue(int threads) {
    static std::map<int, l4j_queue *> made;
    l4j_queue *&q = made[threads];
    if (!q) {
        l4j_queue_options options = {};
        options.struct_size = sizeof options;
        options.threads = threads;
        l4j_error error = {};
        must(l4j_queue_create(device(), &options, &q, &error), error);
    }
    return q;
}

int32_t dtype_of(const std::string &name) {
    if (name == "f32") return L4J_F32;
    if (name == "bf16") return L4J_BF16;
    if (name == "f16") return L4J_F16;
    throw std::invalid_argument("found '" + name + "', expected f32, bf16 or f16");
}

int32_t compute_of(const Spec &spec) {
    std::string name = spec.word("compute", "f32");
    if (name == "f32") return L4J_COMPUTE_F32;
    if (name == "bf16") return L4J_COMPUTE_BF16;
    if (name == "int8") return L4J_COMPUTE_INT8;
    throw std::invalid_argument(spec.text() + ": compute is '" + name + "', expected f32, bf16 or int8");
}

double bytes_of(int32_t dtype) { return dtype == L4J_F32 ? 4 : 2; }

std::shared_ptr<void> random_values(int32_t dtype, int64_t count, float scale) {
    size_t size = static_cast<size_t>(count) * (dtype == L4J_F32 ? 4 : 2);
    std::shared_ptr<void> memory(aligned_alloc(64, (size + 64) / 64 * 64), free);
    if (!memory) throw std::bad_alloc();
    // The sign and the mantissa are random, the exponent is that of 0.5. After a million values they begin again.
    const int64_t kPeriod = 1 << 20;
    uint32_t u = 1;
    for (int64_t i = 0; i < std::min(count, kPeriod); i++) {
        u = u * 1664525u + 1013904223u;
        if (dtype == L4J_F32) {
            uint32_t bits = (u & 0x807fffffu) | 0x3f000000u;
            float value;
            memcpy(&value, &bits, 4);
            static_cast<float *>(memory.get())[i] = scale * value;
        } else {
            uint32_t high = u >> 16;
            static_cast<uint16_t *>(memory.get())[i] =
                static_cast<uint16_t>(dtype == L4J_BF16 ? (high & 0x807fu) | 0x3f00u : (high & 0x83ffu) | 0x3800u);
        }
    }
    size_t period = size / static_cast<size_t>(count) * static_cast<size_t>(kPeriod);
    for (size_t done = period; done < size; done += period) {
        memcpy(static_cast<char *>(memory.get()) + done, memory.get(), std::min(period, size - done));
    }
    return memory;
}

const l4j_tensor *Operands::operator()(const std::vector<int64_t> &shape, float scale, int32_t dtype) {
    l4j_tensor t = {};
    t.dtype = dtype;
    t.device_type = L4J_DEVICE_CPU;
    t.ndim = static_cast<int32_t>(shape.size());
    int64_t n = 1;
    for (int i = t.ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[static_cast<size_t>(i)];
        t.stride[i] = n;
        n *= t.shape[i];
    }
    memory_.push_back(random_values(dtype, n, scale));
    t.data = memory_.back().get();
    tensors_.push_back(t);
    return &tensors_.back();
}

WeightHandle random_weight(const Spec &spec, int64_t rows, int64_t cols) {
    std::string layout = spec.word("layout", "rows");
    if (layout != "rows" && layout != "packed") {
        throw std::invalid_argument(spec.text() + ": layout is '" + layout + "', expected rows or packed");
    }
    std::string name = spec.word("weight", "f32");
    auto parts = std::make_shared<QuantizedParts>();
    auto values = std::make_shared<Operands>();
    if (int32_t scheme = scheme_of(name)) {
        *parts = random_parts(scheme, rows, cols);
    } else {
        parts->scheme = L4J_SCHEME_DENSE;
        parts->roles = {L4J_ROLE_VALUES};
        parts->values = {*(*values)({rows, cols}, 1, dtype_of(name))};
    }
    l4j_weight_options options = {};
    options.struct_size = sizeof options;
    options.scheme = parts->scheme;
    options.mode = layout == "packed" ? L4J_WEIGHT_PACK : L4J_WEIGHT_BORROW;
    // Quantized weights are packed alike for every compute.
    bool tiles = parts->scheme == L4J_SCHEME_DENSE && layout == "packed" && compute_of(spec) == L4J_COMPUTE_BF16;
    options.compute = tiles ? L4J_COMPUTE_BF16 : L4J_COMPUTE_F32;
    options.rows = rows;
    options.cols = cols;
    options.part_count = static_cast<int32_t>(parts->roles.size());
    options.part_roles = parts->roles.data();
    options.part_values = parts->values.data();
    l4j_weight *handle = nullptr;
    l4j_error error = {};
    must(l4j_weight_create(device(), queue(threads_of(spec)), &options, &handle, &error), error);
    if (options.mode == L4J_WEIGHT_PACK) values.reset(), parts.reset();
    return WeightHandle(handle, [values, parts](l4j_weight *w) { l4j_weight_destroy(w, nullptr); });
}

double weight_bytes(const Spec &spec, int64_t rows, int64_t cols) {
    std::string name = spec.word("weight", "f32");
    if (int32_t scheme = scheme_of(name)) return random_parts(scheme, rows, cols).bytes;
    bool tiles = spec.word("layout", "rows") == "packed" && compute_of(spec) == L4J_COMPUTE_BF16;
    return bytes_of(tiles ? L4J_BF16 : dtype_of(name)) * static_cast<double>(rows * cols);
}
