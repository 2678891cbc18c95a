// Several adapters in one batch on a GPU: microseconds of forward and backward by graph replay, in BF16, operands rotated so that no call
// finds its own in the cache. One JSON object for each case; "of_single" is the speed of forward and backward in relation to that of one
// adapter for all rows, "on_top_us" what the forward pass costs beyond that of the frozen products.
//   gpu_segments [device [case ...]]  cases by the number of their shape, from 0; all without any. LORA4J_CUBLAS=off leaves the free
//                                     choice among our own kernels. Needs liblora4j_cuda.so beside liblora4j.so or in LORA4J_CUDA_LIBRARY
#include "gpu_bench.h"

#include <iterator>
#include <memory>
#include <string>

namespace {

struct Segment {
    int32_t adapter;
    int64_t rows;
};
struct Shape {
    int64_t M, K;
    std::vector<int64_t> N; // of the group's projections
    int64_t r;
};

// A call with its operands.
class Call {
public:
    // Without segments all rows are the only adapter's.
    Call(const Shape &shape, int32_t adapters, const std::vector<Segment> &segments, uint32_t flags) : shape_(shape) {
        size_t G = shape.N.size();
        x_ = floats({shape.M, shape.K}, 1);
        dx_ = floats({shape.M, shape.K}, 1);
        for (int64_t n : shape.N) {
            y_.push_back(floats({shape.M, n}, 1));
            dy_.push_back(floats({shape.M, n}, 1));
            s_.push_back(adapters ? floats({shape.M, shape.r}, 1) : l4j_tensor{});
            weights_.push_back(weight(n));
        }
        for (int32_t a = 0; a < adapters; a++) {
            for (int64_t n : shape.N) {
                a_.push_back(floats({shape.r, shape.K}, 0.02f));
                b_.push_back(floats({n, shape.r}, 0.02f));
                da_.push_back(gradient({shape.r, shape.K}));
                db_.push_back(gradient({n, shape.r}));
            }
        }
        args.struct_size = sizeof args;
        args.flags = flags;
        args.projection_count = static_cast<int32_t>(G);
        args.x = &x_;
        args.dx = &dx_;
        args.weights = weights_.data();
        args.y = y_.data();
        args.dy = dy_.data();
        if (!adapters) return;
        args.adapter_count = adapters;
        args.a = a_.data();
        args.b = b_.data();
        args.s = s_.data();
        args.da = da_.data();
        args.db = db_.data();
        args.scaling = keep(upload(std::vector<float>(static_cast<size_t>(adapters) * G, 2.0f)));
        if (segments.empty()) return;
        std::vector<int32_t> offsets = {0}, owners;
        for (const Segment &segment : segments) {
            offsets.push_back(offsets.back() + static_cast<int32_t>(segment.rows));
            owners.push_back(segment.adapter);
        }
        args.segment_capacity = static_cast<int32_t>(segments.size());
        args.segment_count = keep(scalar(args.segment_capacity));
        args.segment_offsets = keep(upload(offsets));
        args.segment_adapters = keep(upload(owners));
    }
    Call(const Call &) = delete;
    ~Call() {
        for (const l4j_weight *w : weights_) must(l4j_weight_destroy(const_cast<l4j_weight *>(w), &failure));
        for (void *p : memory_) must(l4j_memory_free(device, p, &failure));
    }

    l4j_lora args = {};

private:
    template <class T> T *keep(T *p) {
        memory_.push_back(p);
        return p;
    }
    l4j_tensor floats(std::initializer_list<int64_t> shape, float scale) {
        return tensor(keep(values(*shape.begin() * *(shape.end() - 1), scale)), L4J_BF16, shape);
    }
    l4j_tensor gradient(std::initializer_list<int64_t> shape) {
        return tensor(keep(values(2 * *shape.begin() * *(shape.end() - 1), 0)), L4J_F32, shape);
    }
    const l4j_weight *weight(int64_t n) {
        l4j_tensor w = floats({n, shape_.K}, 0.02f);
        int32_t role = L4J_ROLE_VALUES;
        l4j_weight_options options = {};
        options.struct_size = sizeof options;
        options.scheme = L4J_SCHEME_DENSE;
        options.mode = L4J_WEIGHT_BORROW;
        options.rows = n;
        options.cols = shape_.K;
        options.part_count = 1;
        options.part_roles = &role;
        options.part_values = &w;
        l4j_weight *made;
        must(l4j_weight_create(device, queue, &options, &made, &failure));
        return made;
    }

    Shape shape_;
    std::vector<void *> memory_;
    std::vector<const l4j_weight *> weights_;
    l4j_tensor x_, dx_;
    std::vector<l4j_tensor> a_, b_, da_, db_, y_, dy_, s_;
};

struct Times {
    double forward, backward;
};

Times time(const Shape &shape, int32_t adapters, const std::vector<Segment> &segments, uint32_t flags = 0) {
    std::vector<std::unique_ptr<Call>> calls;
    for (int i = 0; i < 3; i++) calls.push_back(std::make_unique<Call>(shape, adapters, segments, flags));
    double us[2];
    for (bool backward : {false, true}) {
        size_t bytes = 0;
        const l4j_lora *first = &calls[0]->args;
        must(backward ? l4j_lora_backward_workspace(queue, first, &bytes, &failure)
                      : l4j_lora_forward_workspace(queue, first, &bytes, &failure));
        void *workspace = nullptr;
        must(l4j_memory_allocate(device, bytes, &workspace, &failure));
        us[backward] = microseconds(
            [&] {
                for (auto &call : calls) {
                    must(backward ? l4j_lora_backward(queue, &call->args, workspace, bytes, &failure)
                                  : l4j_lora_forward(queue, &call->args, workspace, bytes, &failure));
                }
            },
            calls.size());
        must(l4j_memory_free(device, workspace, &failure));
    }
    return {us[0], us[1]};
}

// Rows of `adapters` in equal parts, in runs of `run` rows in turn.
std::vector<Segment> equal(int64_t M, int32_t adapters, int64_t run) {
    std::vector<Segment> segments;
    for (int64_t m = 0; m < M; m += run) segments.push_back({static_cast<int32_t>(m / run % adapters), run});
    return segments;
}
// Half of the rows, half of the rest, and so on; the last two have the same.
std::vector<Segment> halves(int64_t M, int32_t adapters) {
    std::vector<Segment> segments;
    for (int32_t a = 0; a < adapters; a++) {
        int64_t rows = a + 1 < adapters ? M / 2 : M;
        segments.push_back({a, rows});
        M -= rows;
    }
    return segments;
}

void report(const Shape &shape, const char *name, Times t, Times frozen, Times single) {
    std::string widths;
    for (int64_t n : shape.N) widths += (widths.empty() ? "" : ", ") + std::to_string(n);
    printf("{\"M\": %lld, \"K\": %lld, \"N\": [%s], \"r\": %lld, \"case\": \"%s\", \"forward_us\": %.1f, "
           "\"backward_us\": %.1f, "
           "\"on_top_us\": %.1f, \"of_single\": %.2f}\n",
           static_cast<long long>(shape.M), static_cast<long long>(shape.K), widths.c_str(),
           static_cast<long long>(shape.r), name, t.forward, t.backward, t.forward - frozen.forward,
           (single.forward + single.backward) / (t.forward + t.backward));
    fflush(stdout);
}

} // namespace

int main(int argc, char **argv) {
    open_gpu(argc, argv);
    const Shape shapes[] = {{8192, 4096, {4096}, 16}, {2048, 4096, {4096}, 16}, {32, 4096, {4096, 4096, 4096}, 16}};
    std::vector<Shape> chosen;
    for (int i = 2; i < argc; i++) chosen.push_back(shapes[static_cast<size_t>(atoi(argv[i])) % std::size(shapes)]);
    if (chosen.empty()) chosen.assign(std::begin(shapes), std::end(shapes));
    for (const Shape &shape : chosen) {
        int64_t M = shape.M;
        Times frozen = time(shape, 0, {}), single = time(shape, 1, {});
        report(shape, "frozen", frozen, frozen, single);
        report(shape, "one adapter", single, frozen, single);
        const struct {
            const char *name;
            int32_t adapters;
            std::vector<Segment> segments;
        } large[] = {{"one segment", 1, {{0, M}}},
                     {"8 adapters, equal segments", 8, equal(M, 8, M / 8)},
                     {"8 adapters, each half of the rest", 8, halves(M, 8)},
                     {"8 adapters, runs of 16 rows in turn", 8, equal(M, 8, 16)}};
        if (M < 256) {
            int32_t rows = static_cast<int32_t>(M);
            report(shape, "a row for each adapter", time(shape, rows, equal(M, rows, 1)), frozen, single);
            continue;
        }
        for (const auto &c : large) {
            report(shape, c.name, time(shape, c.adapters, c.segments), frozen, single);
            Times free = time(shape, c.adapters, c.segments, L4J_LORA_BATCH_DEPENDENT);
            report(shape, (std::string(c.name) + ", free choice").c_str(), free, frozen, single);
        }
    }
}
