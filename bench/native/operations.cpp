// Our operations beside the products, each a family; sizes default to more memory than the caches hold, or to SmolLM2-135M's.
#include <cmath>
#include <stdexcept>

#include "library.h"
#include "work.h"

namespace {

// The argument struct of an operation and what it points to.
template <typename Args> struct Call {
    Operands make;
    Args args = {};
    std::vector<int32_t> a, b, c;
    Call() { args.struct_size = sizeof args; }
};

template <typename Args>
Work work(std::shared_ptr<Call<Args>> call, std::function<void()> run, double bytes, double flops = 0) {
    Work made;
    made.run = [call, run] { run(); };
    made.bytes = bytes;
    made.flops = flops;
    return made;
}

struct Rows {
    int64_t M, N;
    double bytes; // of one tensor
    explicit Rows(const Spec &spec)
        : M(spec.number("m", 8192)), N(spec.number("n", 1536)), bytes(4.0 * static_cast<double>(M * N)) {}
};

bool backward(const Spec &spec) {
    std::string pass = spec.word("pass", "forward");
    if (pass != "forward" && pass != "backward") {
        throw std::invalid_argument(spec.text() + ": pass is '" + pass + "', expected forward or backward");
    }
    return pass == "backward";
}

// residual=1: with a residual, in place.
Work rms_norm(const Spec &spec, l4j_queue *q) {
    Rows rows(spec);
    bool back = backward(spec), residual = spec.number("residual", 0) != 0;
    auto call = std::make_shared<Call<l4j_rms_norm>>();
    l4j_rms_norm &args = call->args;
    Operands &make = call->make;
    args.eps = 1e-5f;
    args.x = make({rows.M, rows.N});
    args.weight = make({rows.N});
    args.rstd = make({rows.M});
    if (residual) args.residual = args.h = make({rows.M, rows.N});
    if (back) {
        args.h = args.x;
        args.dy = make({rows.M, rows.N});
        args.dx = make({rows.M, rows.N});
        return work(call, OPERATION(rms_norm_backward, q, args), 3 * rows.bytes);
    }
    args.y = residual ? args.x : make({rows.M, rows.N});
    return work(call, OPERATION(rms_norm_forward, q, args), (residual ? 4 : 2) * rows.bytes);
}

Work rope(const Spec &spec, l4j_queue *q) {
    Rows rows(spec);
    auto call = std::make_shared<Call<l4j_rope>>();
    l4j_rope &args = call->args;
    args.flags = spec.number("interleaved", 0) ? L4J_ROPE_INTERLEAVED : 0;
    args.src = call->make({rows.M, rows.N / 64, 64});
    args.dst = call->make({rows.M, rows.N / 64, 64});
    args.cosine = call->make({2048, 32});
    args.sine = call->make({2048, 32});
    for (int64_t m = 0; m < rows.M; m++) call->a.push_back(static_cast<int32_t>(m % 2048));
    args.positions = call->a.data();
    return work(call, OPERATION(rope_forward, q, args), 2 * rows.bytes);
}

Work swiglu(const Spec &spec, l4j_queue *q) {
    Rows rows(spec);
    auto call = std::make_shared<Call<l4j_swiglu>>();
    l4j_swiglu &args = call->args;
    args.gate = call->make({rows.M, rows.N}, 4);
    args.up = call->make({rows.M, rows.N});
    args.out = args.dgate = call->make({rows.M, rows.N});
    if (!backward(spec)) return work(call, OPERATION(swiglu_forward, q, args), 3 * rows.bytes);
    args.dout = call->make({rows.M, rows.N});
    args.dup = call->make({rows.M, rows.N});
    return work(call, OPERATION(swiglu_backward, q, args), 5 * rows.bytes);
}

Work axpby(const Spec &spec, l4j_queue *q) {
    static const float half = 0.5f;
    Rows rows(spec);
    auto call = std::make_shared<Call<l4j_axpby>>();
    call->args.alpha = call->args.beta = &half;
    call->args.x = call->make({rows.M, rows.N});
    call->args.y = call->make({rows.M, rows.N});
    return work(call, OPERATION(axpby_forward, q, call->args), 3 * rows.bytes);
}

// Rows of the table that are far apart: each is read and written once.
Work embedding(const Spec &spec, l4j_queue *q) {
    int64_t M = spec.number("m", 8192), N = spec.number("n", 576), V = spec.number("v", 49152);
    struct Full : Call<l4j_embedding> {
        WeightHandle table;
    };
    auto call = std::make_shared<Full>();
    call->table = random_weight(spec, V, N);
    for (int64_t m = 0; m < M; m++) call->a.push_back(static_cast<int32_t>(m * 7919 % V));
    call->args.weight = call->table.get();
    call->args.ids = call->a.data();
    call->args.out = call->make({M, N});
    return work<l4j_embedding>(call, OPERATION(embedding_forward, q, call->args), 8.0 * static_cast<double>(M * N));
}

// Adapters: reads of four tensors and of the gradients once more for the norm, writes of four.
Work adamw(const Spec &spec, l4j_queue *q) {
    const int64_t count = spec.number("tensors", 210), size = spec.number("n", 40000);
    struct Full : Call<l4j_adamw> {
        std::vector<l4j_tensor> lists[4];
        l4j_adamw_hyper hyper = {1e-4, 0.9, 0.999, 1e-8, 0, 1, 1, 1};
        double norm = 0;
        l4j_adamw_group group = {};
    };
    auto call = std::make_shared<Full>();
    for (auto &list : call->lists) {
        for (int64_t i = 0; i < count; i++) list.push_back(*call->make({size}));
    }
    for (l4j_tensor &t : call->lists[3]) { // mean squares are not negative
        for (int64_t i = 0; i < size; i++) static_cast<float *>(t.data)[i] = std::fabs(static_cast<float *>(t.data)[i]);
    }
    call->group = {count,
                   call->lists[0].data(),
                   call->lists[1].data(),
                   call->lists[2].data(),
                   call->lists[3].data(),
                   &call->hyper,
                   &call->norm,
                   nullptr,
                   nullptr};
    call->args.flags = L4J_ADAMW_ZERO_GRADS;
    call->args.group_count = 1;
    call->args.groups = &call->group;
    return work<l4j_adamw>(call, OPERATION(adamw_step, q, call->args), 9.0 * 4 * static_cast<double>(count * size));
}

// b sequences of t queries that see `keys` keys (default t), causal; flops are those of the pairs that the mask leaves. Of few queries
// the keys and values that are read are the limit.
Work attention(const Spec &spec, l4j_queue *q) {
    int64_t B = spec.number("b", 1), T = spec.number("t"), keys = spec.number("keys", T);
    int64_t H = spec.number("heads", 9), Hkv = spec.number("kv", 3), D = spec.number("d", 64);
    bool back = backward(spec);
    auto call = std::make_shared<Call<l4j_attention>>();
    l4j_attention &args = call->args;
    call->a.push_back(0);
    for (int64_t b = 0; b < B; b++) {
        call->a.push_back(static_cast<int32_t>((b + 1) * T));
        call->b.push_back(static_cast<int32_t>(b * keys));
        call->c.push_back(static_cast<int32_t>(keys));
    }
    args.flags = L4J_ATTENTION_CAUSAL;
    args.scale = 1 / std::sqrt(static_cast<float>(D));
    args.sequences = static_cast<int32_t>(B);
    args.max_q_length = T;
    args.max_kv_length = keys;
    args.q_offsets = call->a.data();
    args.kv_starts = call->b.data();
    args.kv_lengths = call->c.data();
    args.q = call->make({B * T, H, D});
    args.k = call->make({B * keys, Hkv, D});
    args.v = call->make({B * keys, Hkv, D});
    args.o = call->make({B * T, H, D});
    args.lse = call->make({B * T, H});
    double pairs = static_cast<double>(B * H) *
                   (static_cast<double>(T) * static_cast<double>(keys - T) + 0.5 * static_cast<double>(T * (T + 1)));
    double bytes = T <= 16 ? 8.0 * static_cast<double>(B * keys * Hkv * D) : 0;
    auto forward = OPERATION(attention_forward, q, args);
    if (!back) return work(call, forward, bytes, 4.0 * static_cast<double>(D) * pairs);
    forward(); // the output and lse that backward reads
    args.d_o = call->make({B * T, H, D});
    args.dq = call->make({B * T, H, D});
    args.dk = call->make({B * keys, Hkv, D});
    args.dv = call->make({B * keys, Hkv, D});
    return work(call, OPERATION(attention_backward, q, args), bytes, 10.0 * static_cast<double>(D) * pairs);
}

// One token out of v logits.
Work sample(const Spec &spec, l4j_queue *q) {
    struct Full : Call<l4j_sample> {
        l4j_sample_hyper hyper = {0.7, 1, 0, 0, 1, 0};
        int32_t id = 0;
    };
    auto call = std::make_shared<Full>();
    call->hyper.top_p = spec.real("top_p", 1);
    call->hyper.top_k = static_cast<int32_t>(spec.number("top_k", 0));
    call->args.logits = call->make({1, spec.number("v", 49152)}, 10);
    call->args.hyper = &call->hyper;
    call->args.ids = &call->id;
    return work<l4j_sample>(call, OPERATION(sample_forward, q, call->args), 0);
}

} // namespace

Work make_operation(const Spec &spec) {
    static const std::map<std::string, Work (*)(const Spec &, l4j_queue *)> families = {
        {"rms_norm", rms_norm},   {"rope", rope},   {"swiglu", swiglu},       {"axpby", axpby},
        {"embedding", embedding}, {"adamw", adamw}, {"attention", attention}, {"sample", sample}};
    auto found = families.find(spec.family());
    if (found == families.end())
        throw std::invalid_argument(spec.text() + ": no family is called '" + spec.family() + "'");
    return found->second(spec, queue(threads_of(spec)));
}
