// Our products: the frozen linear layer, the layer with an adapter, the head with its loss. Families gemm (who=ours), lora and loss.
#include <stdexcept>

#include "library.h"
#include "work.h"

namespace {

// A group of projections that share x, with or without adapters (r = 0). One argument struct for each copy of the weights.
struct LoraCall {
    Operands make;
    std::vector<l4j_tensor> a, b, y, s, dy, da, db;
    std::vector<std::vector<WeightHandle>> weights;
    std::vector<std::vector<const l4j_weight *>> handles;
    std::vector<float> scaling;
    std::vector<int32_t> modules;
    std::vector<uint32_t> tokens;
    std::deque<l4j_lora> calls;
    uint64_t seed = 1;
    int64_t step = 1;
    int32_t adapter = 0;
    double flops_frozen = 0, flops_rank = 0, bytes = 0; // of one direction

    LoraCall(const Spec &spec, int64_t M, int64_t K, const std::vector<int64_t> &widths, int64_t R, double p) {
        size_t G = widths.size();
        double m = static_cast<double>(M), k = static_cast<double>(K);
        for (int64_t N : widths) {
            double n = static_cast<double>(N), r = static_cast<double>(R);
            flops_frozen += 2 * m * k * n;
            flops_rank += 2 * m * r * (k + n);
            bytes += weight_bytes(spec, N, K);
            y.push_back(*make({M, N}));
            dy.push_back(*make({M, N}));
            if (R == 0) continue;
            a.push_back(*make({R, K}, 0.1f));
            b.push_back(*make({N, R}, 0.1f));
            s.push_back(*make({M, R}));
            da.push_back(*make({R, K}));
            db.push_back(*make({N, R}));
            scaling.push_back(2);
            modules.push_back(static_cast<int32_t>(modules.size()));
        }
        tokens.resize(static_cast<size_t>(M));
        for (size_t i = 0; i < tokens.size(); i++) tokens[i] = static_cast<uint32_t>(i);
        l4j_lora call = {};
        call.struct_size = sizeof call;
        call.projection_count = static_cast<int32_t>(G);
        call.adapter_count = R > 0;
        call.dropout_p = static_cast<float>(p);
        call.compute = compute_of(spec);
        call.x = make({M, K});
        call.dx = make({M, K});
        call.y = y.data();
        call.dy = dy.data();
        if (R > 0) {
            call.a = a.data();
            call.b = b.data();
            call.s = s.data();
            call.da = da.data();
            call.db = db.data();
            call.scaling = scaling.data();
            call.dropout_seed = &seed;
            call.dropout_step = &step;
            call.token_index = tokens.data();
            call.module_id = modules.data();
            call.adapter_id = &adapter;
        }
        weights.resize(static_cast<size_t>(copies_of(spec)));
        handles.resize(weights.size());
        for (size_t c = 0; c < weights.size(); c++) {
            for (int64_t N : widths) {
                weights[c].push_back(random_weight(spec, N, K));
                handles[c].push_back(weights[c].back().get());
            }
            call.weights = handles[c].data();
            calls.push_back(call);
        }
    }
};

// Runs each of several in turn.
std::function<void()> in_turn(std::vector<std::function<void()>> runs, std::shared_ptr<void> owner) {
    auto next = std::make_shared<size_t>(0);
    return [runs, next, owner] {
        runs[*next]();
        *next = (*next + 1) % runs.size();
    };
}

Work lora_work(const Spec &spec, int64_t M, int64_t K, const std::vector<int64_t> &widths, int64_t R, double p,
               const std::string &pass) {
    bool forward = pass == "forward" || pass == "both", backward = pass == "backward" || pass == "both";
    if (!forward && !backward)
        throw std::invalid_argument(spec.text() + ": found '" + pass + "', expected forward, backward or both");
    auto lora = std::make_shared<LoraCall>(spec, M, K, widths, R, p);
    l4j_queue *q = queue(threads_of(spec));
    std::vector<std::function<void()>> runs;
    for (const l4j_lora &call : lora->calls) {
        std::function<void()> f, b;
        if (forward) f = OPERATION(lora_forward, q, call);
        if (backward) b = OPERATION(lora_backward, q, call);
        runs.push_back([=] {
            if (forward) f();
            if (backward) b();
        });
    }
    Work work;
    work.run = in_turn(runs, lora);
    work.flops = (forward + backward) * lora->flops_frozen + (forward + 2 * backward) * lora->flops_rank;
    if (reads_weights(M)) work.bytes = (forward + backward) * lora->bytes;
    return work;
}

} // namespace

// Keys: op (nt: Y = X·Wᵀ; nn: dX = dY·W), m, k, n; weight, layout, copies; compute (f32; bf16; int8: nt with GGUF weights).
Work make_product(const Spec &spec) {
    std::string op = spec.word("op");
    if (op != "nt" && op != "nn") throw std::invalid_argument(spec.text() + ": op is '" + op + "', expected nt or nn");
    return lora_work(spec, spec.number("m"), spec.number("k"), {spec.number("n")}, 0, 0,
                     op == "nt" ? "forward" : "backward");
}

// Keys: m, k, n (several for a group: n=576,192,192), r (0: no adapter), p (dropout), pass (forward, backward, both); weight,
// layout, copies, compute.
Work make_lora(const Spec &spec) {
    return lora_work(spec, spec.number("m"), spec.number("k"), spec.numbers("n"), spec.number("r"), spec.real("p", 0),
                     spec.word("pass", "both"));
}

// linear_cross_entropy with the gradient of x, two products. Keys: m, k, v; weight, layout.
Work make_loss(const Spec &spec) {
    struct Call {
        Operands make;
        WeightHandle weight;
        std::vector<int32_t> targets;
        l4j_linear_cross_entropy args = {};
    };
    int64_t M = spec.number("m"), K = spec.number("k"), V = spec.number("v");
    auto call = std::make_shared<Call>();
    call->weight = random_weight(spec, V, K);
    for (int64_t m = 0; m < M; m++) call->targets.push_back(static_cast<int32_t>(m * 7919 % V));
    l4j_linear_cross_entropy &args = call->args;
    args.struct_size = sizeof args;
    args.ignore_index = -100;
    args.x = call->make({M, K}, 0.1f);
    args.weight = call->weight.get();
    args.targets = call->targets.data();
    args.loss = call->make({M});
    args.lse = call->make({M});
    args.dx = call->make({M, K});
    auto run = OPERATION(linear_cross_entropy_forward, queue(threads_of(spec)), args);
    Work work;
    work.run = [run, call] { run(); };
    work.flops = 4.0 * static_cast<double>(M) * static_cast<double>(K * V);
    return work;
}
