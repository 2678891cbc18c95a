// Attention over packed sequences with seeded operands, built for any tier; what attention_test and attention_window_test run.
#pragma once

#include "support.h"

namespace l4j::attention {

// Sequences of queries and keys; keys lie in reverse order of the sequences with a free row between them.
struct Problem {
    std::vector<int32_t> queries, keys;
    int64_t q_heads = 1, kv_heads = 1, depth = 8;
    bool causal = true;
    int32_t window = 0;
    Guarded::Side side = Guarded::kAfter;
    int64_t pad = 0;

    int64_t group() const { return q_heads / kv_heads; }
    int64_t rows() const {
        int64_t n = 0;
        for (int32_t q : queries) n += q;
        return n;
    }
    int64_t key_rows() const {
        int64_t n = 1;
        for (int32_t k : keys) n += k + 1;
        return n;
    }
    std::vector<int32_t> offsets() const {
        std::vector<int32_t> at = {0};
        for (int32_t q : queries) at.push_back(at.back() + q);
        return at;
    }
    std::vector<int32_t> starts() const {
        std::vector<int32_t> at(keys.size());
        int32_t next = 1;
        for (size_t b = keys.size(); b-- > 0; next += keys[b] + 1) at[b] = next;
        return at;
    }
};

inline std::string name(const Problem &p) {
    std::string s = "D=" + std::to_string(p.depth) + " heads " + std::to_string(p.q_heads) + "/" +
                    std::to_string(p.kv_heads) + (p.causal ? " causal" : "") +
                    (p.window ? " window " + std::to_string(p.window) : "") + " lengths";
    for (size_t b = 0; b < p.queries.size(); b++)
        s += " " + std::to_string(p.queries[b]) + ":" + std::to_string(p.keys[b]);
    return s;
}

// All operands of one call in guarded memory. Keys that no sequence covers stay poisoned, so that reading one shows.
struct Call {
    Call(int32_t isa, const Problem &p, uint64_t seed)
        : q(isa, {p.rows(), p.q_heads, p.depth}, p.pad, p.side),
          k(isa, {p.key_rows(), p.kv_heads, p.depth}, p.pad, p.side),
          v(isa, {p.key_rows(), p.kv_heads, p.depth}, p.pad, p.side),
          o(isa, {p.rows(), p.q_heads, p.depth}, p.pad, p.side), lse(isa, {p.rows(), p.q_heads}, p.pad, p.side),
          d_o(isa, {p.rows(), p.q_heads, p.depth}, p.pad, p.side),
          dq(isa, {p.rows(), p.q_heads, p.depth}, p.pad, p.side),
          dk(isa, {p.key_rows(), p.kv_heads, p.depth}, p.pad, p.side),
          dv(isa, {p.key_rows(), p.kv_heads, p.depth}, p.pad, p.side), offsets(p.offsets()), starts(p.starts()),
          lengths(p.keys) {
        l4j::Random random(seed);
        q.fill(random.floats(q.size(), 2));
        d_o.fill(random.floats(d_o.size()));
        std::vector<float> ks = random.floats(k.size(), 2), vs = random.floats(v.size());
        for (size_t b = 0; b < starts.size(); b++) {
            int64_t width = p.kv_heads * p.depth;
            for (int64_t i = starts[b] * width; i < (starts[b] + lengths[b]) * width; i++) {
                k.set(i, ks[static_cast<size_t>(i)]);
                v.set(i, vs[static_cast<size_t>(i)]);
            }
        }
        args.struct_size = sizeof args;
        args.flags = p.causal ? L4J_ATTENTION_CAUSAL : 0;
        args.window = p.window;
        args.scale = 1.0f / std::sqrt(static_cast<float>(p.depth));
        args.sequences = static_cast<int32_t>(p.queries.size());
        for (int32_t n : p.queries) args.max_q_length = std::max<int64_t>(args.max_q_length, n);
        for (int32_t n : p.keys) args.max_kv_length = std::max<int64_t>(args.max_kv_length, n);
        args.q_offsets = offsets.data();
        args.kv_starts = starts.data();
        args.kv_lengths = lengths.data();
        args.q = q.get();
        args.k = k.get();
        args.v = v.get();
        args.o = o.get();
        args.lse = lse.get();
        args.d_o = d_o.get();
        args.dq = dq.get();
        args.dk = dk.get();
        args.dv = dv.get();
    }
    Call(const Call &) = delete;
    void run(const Context &context) {
        L4J_ASSERT_OK(L4J_RUN(attention_forward, context.queue(), &args)(error));
        L4J_ASSERT_OK(L4J_RUN(attention_backward, context.queue(), &args)(error));
    }
    std::vector<std::pair<const char *, const Operand *>> outputs() const {
        return {{"o", &o}, {"lse", &lse}, {"dq", &dq}, {"dk", &dk}, {"dv", &dv}};
    }
    Operand q, k, v, o, lse, d_o, dq, dk, dv;
    std::vector<int32_t> offsets, starts, lengths;
    l4j_attention args = {};
};

// Values of the rows that some sequence covers; the others must still be poison.
inline std::vector<double> covered(const Operand &x, const Problem &p) {
    bool keys = x.get()->shape[0] == p.key_rows() && x.get()->ndim == 3 && x.get()->shape[1] == p.kv_heads;
    if (!keys || x.get()->shape[0] == p.rows()) return x.values();
    std::vector<int32_t> starts = p.starts();
    std::vector<double> values;
    int64_t width = x.size() / p.key_rows();
    for (int64_t row = 0; row < p.key_rows(); row++) {
        bool inside = false;
        for (size_t b = 0; b < starts.size(); b++) inside |= row >= starts[b] && row < starts[b] + p.keys[b];
        for (int64_t i = row * width; i < (row + 1) * width; i++) {
            if (inside) {
                values.push_back(x.at(i));
            } else {
                EXPECT_TRUE(std::isnan(x.at(i))) << "row " << row << " is not of any sequence but was written";
            }
        }
    }
    return values;
}

inline std::vector<float> bits(const Operand &x, const Problem &p) {
    std::vector<float> values;
    for (double y : covered(x, p)) values.push_back(static_cast<float>(y));
    return values;
}

// Σ, over the elements of dq and of dk, of the squares of the terms that they are sums of: p·dp·scale and p·delta·scale, times k for dq
// and q for dk. `call` is an oracle's that has run.
struct Squares {
    double dq = 0, dk = 0;
};
inline Squares squares_of_terms(const Call &call, const Problem &p) {
    auto dot = [&](const Operand &x, int64_t row, const Operand &y, int64_t other) {
        double sum = 0;
        for (int64_t d = 0; d < p.depth; d++) sum += x.at(row * p.depth + d) * y.at(other * p.depth + d);
        return sum;
    };
    Squares sum;
    for (size_t b = 0; b < p.queries.size(); b++) {
        for (int64_t i = 0; i < p.queries[b]; i++) {
            int64_t limit = p.causal ? p.keys[b] - p.queries[b] + i + 1 : p.keys[b];
            for (int64_t h = 0; h < p.q_heads; h++) {
                int64_t row = (call.offsets[b] + i) * p.q_heads + h;
                double delta = dot(call.d_o, row, call.o, row), q = dot(call.q, row, call.q, row);
                for (int64_t j = p.window ? std::max<int64_t>(0, limit - p.window) : 0; j < limit; j++) {
                    int64_t key = (call.starts[b] + j) * p.kv_heads + h / p.group();
                    double weight = std::exp(dot(call.q, row, call.k, key) * call.args.scale - call.lse.at(row));
                    double dp = dot(call.d_o, row, call.v, key), factor = weight * call.args.scale;
                    double square = factor * factor * (dp * dp + delta * delta);
                    sum.dq += square * dot(call.k, key, call.k, key);
                    sum.dk += square * q;
                }
            }
        }
    }
    return sum;
}

// Every tier and number of threads has the bits of ref with one thread, and ref is close to fp64. Tolerance: the relative error
// of chains of up to 9000 products in fp32.
//
// On a GPU ds = p·(dp − delta) is rounded to 16 bits before it is multiplied by k or q, and o, of which delta is made, has the roundings of
// p. Over the keys of a query ds sums to zero: what is left of a short sequence's dq may be smaller than those roundings. Both gradients
// are therefore measured against their terms too. These are taken as squares, as independent roundings add up: of long sums, which
// cancel no more than random ones do, that asks for as much as the plain rule, within a small factor.
inline void check(const Problem &p, const std::vector<int> &threads = {1, 2, 5}) {
    SCOPED_TRACE(name(p));
    Context oracle(L4J_ISA_REF64), reference(L4J_ISA_REF);
    Call exact(L4J_ISA_REF64, p, 1), ref(L4J_ISA_REF, p, 1);
    exact.run(oracle);
    ref.run(reference);
    for (size_t i = 0; i < ref.outputs().size(); i++) {
        auto [what, x] = ref.outputs()[i];
        EXPECT_LT(l4j::relative_error(covered(*x, p), covered(*exact.outputs()[i].second, p)), 1e-5) << what;
    }
    for (int32_t isa : l4j::tiers()) {
        for (int n : threads) {
            Context context(isa, n);
            Call call(isa, p, 1);
            call.run(context);
            for (size_t i = 0; i < ref.outputs().size(); i++) {
                auto [what, x] = call.outputs()[i];
                ASSERT_TRUE(l4j::same_bits(bits(*x, p), bits(*ref.outputs()[i].second, p)))
                    << what << " on " << l4j::tier_name(isa) << " with " << n << " threads";
            }
        }
    }
    on_gpu(1e-5, [&](double allowed) {
        Context fp64(L4J_ISA_REF64), context(L4J_ISA_CUDA);
        Call wanted(L4J_ISA_REF64, p, 1), call(L4J_ISA_CUDA, p, 1);
        wanted.run(fp64);
        call.run(context);
        Squares squares;
        if (gpu_dtype() != L4J_F32) squares = squares_of_terms(wanted, p);
        for (size_t i = 0; i < wanted.outputs().size(); i++) {
            auto [what, x] = call.outputs()[i];
            double terms = x == &call.dq ? squares.dq : x == &call.dk ? squares.dk : 0;
            ASSERT_LT(l4j::relative_error(covered(*x, p), covered(*wanted.outputs()[i].second, p), terms), allowed)
                << what;
        }
    });
}

} // namespace l4j::attention
