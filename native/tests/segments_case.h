// A call with segments of rows, on any tier, against one call for each adapter with its rows alone; what lora_segments_test runs.
#pragma once

#include "support.h"

namespace l4j::segments {

struct Spec {
    int64_t K = 70;
    std::vector<int64_t> N = {45, 16};
    std::vector<std::vector<int64_t>> R = {{4, 16}, {0, 9}, {33, 0}}; // [adapter][projection], 0 = none
    std::vector<std::pair<int64_t, int32_t>> segments;                // rows, adapter
    int32_t dtype = L4J_F32, mode = L4J_WEIGHT_BORROW;
    bool bias = false, aligned = false; // aligned: rows that may be copied 16 bytes at a time
    float p = 0;
    uint32_t flags = 0;

    int64_t rows() const {
        int64_t M = 0;
        for (auto &s : segments) M += s.first;
        return M;
    }
    int64_t widest(size_t g) const {
        int64_t r = 0;
        for (auto &ranks : R) r = std::max(r, ranks[g]);
        return r;
    }
};

// Values of everything, the same for every tier and every choice of rows.
struct Values {
    explicit Values(const Spec &spec) {
        l4j::Random random(7);
        int64_t M = spec.rows();
        x = random.floats(M * spec.K);
        dx = random.floats(M * spec.K);
        for (size_t g = 0; g < spec.N.size(); g++) {
            w.push_back(random.floats(spec.N[g] * spec.K, 0.1f));
            bias.push_back(random.floats(spec.N[g]));
            dy.push_back(random.floats(M * spec.N[g]));
        }
        for (auto &ranks : spec.R) {
            for (size_t g = 0; g < spec.N.size(); g++) {
                a.push_back(random.floats(ranks[g] * spec.K));
                b.push_back(random.floats(spec.N[g] * ranks[g]));
                da.push_back(random.floats(ranks[g] * spec.K));
                db.push_back(random.floats(spec.N[g] * ranks[g]));
                scaling.push_back(1.0f + 0.25f * random.uniform());
            }
        }
        for (auto &[rows, adapter] : spec.segments)
            row_adapter.insert(row_adapter.end(), static_cast<size_t>(rows), adapter);
    }
    std::vector<float> x, dx, scaling;
    std::vector<std::vector<float>> w, bias, dy, a, b, da, db;
    std::vector<int32_t> row_adapter;
};

// A call over some rows with some adapters: all of them with segments, or one alone.
class Call {
public:
    Call(const Spec &spec, const Values &v, int32_t isa, int threads, std::vector<int64_t> rows,
         std::vector<int32_t> adapters, bool segmented)
        : spec_(spec), context_(isa, threads), rows_(std::move(rows)) {
        size_t G = spec.N.size();
        auto pick = [&](const std::vector<float> &all, int64_t width) {
            std::vector<float> some;
            for (int64_t m : rows_) some.insert(some.end(), all.begin() + m * width, all.begin() + (m + 1) * width);
            return some;
        };
        int64_t M = static_cast<int64_t>(rows_.size());
        x = Operand(isa, {M, spec.K}).fill(pick(v.x, spec.K));
        int64_t pad = spec.aligned ? 8 : 1;
        dx = Operand(isa, {M, spec.K}, pad);
        if (spec.flags & L4J_LORA_ACCUMULATE_DX) dx.fill(pick(v.dx, spec.K));
        for (int64_t m : rows_) token_index_.push_back(static_cast<uint32_t>(3 * m + 11));
        for (size_t g = 0; g < G; g++) {
            weights_.push_back(
                std::make_unique<l4j::TestWeight>(context_, spec.N[g], spec.K, v.w[g], spec.dtype, spec.mode));
            handles_.push_back(weights_.back()->get());
            module_id_.push_back(static_cast<int32_t>(5 + g));
            biases_.push_back(Operand(L4J_ISA_REF, {spec.N[g]}).fill(v.bias[g]));
            dy.push_back(Operand(isa, {M, spec.N[g]}).fill(pick(v.dy[g], spec.N[g])));
            y.push_back(Operand(isa, {M, spec.N[g]}, 3 * pad));
            int64_t widest = 0;
            for (int32_t i : adapters) widest = std::max(widest, spec.R[static_cast<size_t>(i)][g]);
            s.push_back(widest ? Operand(isa, {M, widest}, 2 * pad) : Operand());
        }
        for (int32_t i : adapters) {
            adapter_id_.push_back(100 + i);
            for (size_t g = 0; g < G; g++) {
                size_t at = static_cast<size_t>(i) * G + g;
                int64_t R = spec.R[static_cast<size_t>(i)][g];
                bool old = spec.flags & L4J_LORA_ACCUMULATE_GRADS;
                a.push_back(R ? Operand(isa, {R, spec.K}).fill(v.a[at]) : Operand());
                b.push_back(R ? Operand(isa, {spec.N[g], R}).fill(v.b[at]) : Operand());
                da.push_back(R ? Operand(isa, {R, spec.K}, 1) : Operand());
                db.push_back(R ? Operand(isa, {spec.N[g], R}, 2) : Operand());
                if (R && old) da.back().fill(v.da[at]), db.back().fill(v.db[at]);
                scaling_.push_back(v.scaling[at]);
            }
        }
        if (segmented) {
            capacity_ = static_cast<int32_t>(spec.segments.size()) + 2; // more than are live
            offsets_.push_back(0);
            for (auto &[count, adapter] : spec.segments) {
                offsets_.push_back(offsets_.back() + static_cast<int32_t>(count));
                segment_adapters_.push_back(adapter);
            }
            live_ = static_cast<int32_t>(spec.segments.size());
            offsets_.resize(static_cast<size_t>(capacity_) + 1, -77);
            segment_adapters_.resize(static_cast<size_t>(capacity_), -77);
        }
    }

    l4j_lora args() {
        auto list = [&](std::vector<Operand> &operands, size_t slot) {
            descriptors_[slot].clear();
            for (Operand &o : operands) descriptors_[slot].push_back(*o.get());
            return descriptors_[slot].data();
        };
        l4j_lora args = {};
        args.struct_size = sizeof args;
        args.flags = spec_.flags;
        args.projection_count = static_cast<int32_t>(spec_.N.size());
        args.adapter_count = static_cast<int32_t>(adapter_id_.size());
        args.dropout_p = spec_.p;
        args.x = x.get();
        args.weights = handles_.data();
        if (spec_.bias) args.biases = list(biases_, 0);
        args.a = list(a, 1);
        args.b = list(b, 2);
        args.scaling = scaling_.data();
        args.dropout_seed = &seed_;
        args.dropout_step = &step_;
        args.token_index = token_index_.data();
        args.module_id = module_id_.data();
        args.adapter_id = adapter_id_.data();
        args.segment_capacity = capacity_;
        if (capacity_) {
            args.segment_count = &live_;
            args.segment_offsets = offsets_.data();
            args.segment_adapters = segment_adapters_.data();
        }
        args.y = list(y, 3);
        args.s = list(s, 4);
        args.dy = list(dy, 5);
        args.dx = dx.get();
        args.da = list(da, 6);
        args.db = list(db, 7);
        return args;
    }
    void run() {
        l4j_lora arguments = args();
        L4J_ASSERT_OK(L4J_RUN(lora_forward, context_.queue(), &arguments)(error));
        L4J_ASSERT_OK(L4J_RUN(lora_backward, context_.queue(), &arguments)(error));
    }
    const l4j::Context &context() const { return context_; }

    Operand x, dx;
    std::vector<Operand> a, b, da, db, y, s, dy;
    int32_t live_ = 0;
    std::vector<int32_t> offsets_, segment_adapters_;

private:
    Spec spec_;
    l4j::Context context_;
    std::vector<int64_t> rows_;
    std::vector<std::unique_ptr<l4j::TestWeight>> weights_;
    std::vector<const l4j_weight *> handles_;
    std::vector<Operand> biases_;
    std::vector<float> scaling_;
    std::vector<uint32_t> token_index_;
    std::vector<int32_t> module_id_, adapter_id_;
    uint64_t seed_ = 99;
    int64_t step_ = 4;
    int32_t capacity_ = 0;
    std::vector<l4j_tensor> descriptors_[8];
};

inline std::vector<float> row(const Operand &o, int64_t m, int64_t columns) {
    std::vector<float> v;
    for (int64_t j = 0; j < columns; j++) v.push_back(static_cast<float>(o.at(m * o.get()->shape[1] + j)));
    return v;
}

inline bool is_poison(const std::vector<float> &v, size_t from) {
    for (size_t i = from; i < v.size(); i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], 4);
        if (bits != 0xFFFFFFFFu) return false;
    }
    return true;
}

// All rows with segments on some tiers, against one call per adapter on the tier `alone_on`.
inline void check(const Spec &spec, int32_t alone_on, const std::vector<int32_t> &tiers,
                  const std::vector<int> &thread_counts) {
    Values values(spec);
    int64_t M = spec.rows();
    size_t G = spec.N.size();
    std::vector<int64_t> all;
    std::vector<int32_t> every;
    for (int64_t m = 0; m < M; m++) all.push_back(m);
    for (size_t i = 0; i < spec.R.size(); i++) every.push_back(static_cast<int32_t>(i));
    std::vector<std::unique_ptr<Call>> alone; // [adapter + 1]
    std::vector<std::vector<int64_t>> rows_of;
    for (int32_t i = -1; i < static_cast<int32_t>(spec.R.size()); i++) {
        std::vector<int64_t> rows;
        for (int64_t m = 0; m < M; m++)
            if (values.row_adapter[static_cast<size_t>(m)] == i) rows.push_back(m);
        rows_of.push_back(rows);
        std::vector<int32_t> one;
        if (i >= 0) one.push_back(i);
        alone.push_back(std::make_unique<Call>(spec, values, alone_on, 1, rows, one, false));
        alone.back()->run();
    }
    for (int32_t isa : tiers) {
        for (int threads : thread_counts) {
            Call together(spec, values, isa, threads, all, every, true);
            together.run();
            for (size_t i = 0; i < alone.size(); i++) {
                for (size_t at = 0; at < rows_of[i].size(); at++) {
                    int64_t m = rows_of[i][at], n = static_cast<int64_t>(at);
                    std::string where = std::string(l4j::tier_name(isa)) + " threads " + std::to_string(threads) +
                                        " row " + std::to_string(m) + " of adapter " + std::to_string(i) + " - 1";
                    ASSERT_TRUE(l4j::same_bits(row(alone[i]->dx, n, spec.K), row(together.dx, m, spec.K))) << where;
                    for (size_t g = 0; g < G; g++) {
                        ASSERT_TRUE(l4j::same_bits(row(alone[i]->y[g], n, spec.N[g]), row(together.y[g], m, spec.N[g])))
                            << where << " y " << g;
                        if (!spec.widest(g)) continue;
                        int64_t R = i ? spec.R[i - 1][g] : 0;
                        std::vector<float> s = row(together.s[g], m, spec.widest(g));
                        ASSERT_TRUE(is_poison(s, static_cast<size_t>(R))) << where << " s " << g;
                        s.resize(static_cast<size_t>(R));
                        if (!R) continue;
                        ASSERT_TRUE(l4j::same_bits(row(alone[i]->s[g], n, R), s)) << where << " s " << g;
                    }
                }
                for (size_t g = 0; g < G && i > 0; g++) {
                    size_t at = (i - 1) * G + g;
                    if (!spec.R[i - 1][g]) continue;
                    ASSERT_TRUE(l4j::same_bits(alone[i]->da[g].floats(), together.da[at].floats()))
                        << l4j::tier_name(isa) << " da of adapter " << i - 1 << " projection " << g;
                    ASSERT_TRUE(l4j::same_bits(alone[i]->db[g].floats(), together.db[at].floats()))
                        << l4j::tier_name(isa) << " db of adapter " << i - 1 << " projection " << g;
                }
            }
        }
    }
}

inline void check(const Spec &spec, const std::vector<int> &thread_counts = {1, 2, 5}) {
    check(spec, L4J_ISA_REF, l4j::tiers(), thread_counts);
    l4j::on_gpu(0, [&](double) { check(spec, L4J_ISA_CUDA, {L4J_ISA_CUDA}, {0}); });
}

} // namespace l4j::segments
