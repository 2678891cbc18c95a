// The same products by OpenBLAS and oneDNN. Family gemm, who=openblas and who=onednn; keys as in products.cpp.
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>

#include "library.h"
#include "work.h"

extern "C" {
void cblas_sgemm(int order, int transa, int transb, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc);
void openblas_set_num_threads(int threads);
char *openblas_get_config(void);
}

void set_peer_threads(int threads) {
    openblas_set_num_threads(threads);
    omp_set_num_threads(threads);
}

std::string openblas_about() { return openblas_get_config(); }

std::string onednn_about() {
    const dnnl_version_t *v = dnnl::version();
    std::string isa;
    switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41: isa = "sse41"; break;
    case dnnl::cpu_isa::avx: isa = "avx"; break;
    case dnnl::cpu_isa::avx2: isa = "avx2"; break;
    default: isa = "above avx2"; break;
    }
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch) + " " + isa;
}

namespace {

struct Product {
    int64_t M, K, N; // of the layer: Y[M,N] = X[M,K] · W[N,K]ᵀ
    bool nn;
    int64_t inner() const { return nn ? N : K; }
    int64_t outer() const { return nn ? K : N; }
    double flops() const { return 2.0 * static_cast<double>(M) * static_cast<double>(K * N); }
};

Product product(const Spec &spec) {
    return {spec.number("m"), spec.number("k"), spec.number("n"), spec.word("op") == "nn"};
}

} // namespace

Work make_openblas(const Spec &spec) {
    Product p = product(spec);
    double bytes = 4.0 * static_cast<double>(p.K * p.N);
    auto in = random_values(L4J_F32, p.M * p.inner()), out = random_values(L4J_F32, p.M * p.outer());
    std::vector<std::shared_ptr<void>> weights;
    for (int64_t c = copies_of(spec); c > 0; c--) weights.push_back(random_values(L4J_F32, p.K * p.N));
    Work work;
    work.flops = p.flops();
    if (reads_weights(p.M)) work.bytes = bytes;
    work.run = [=, next = size_t{0}]() mutable {
        enum { kRowMajor = 101, kNoTrans = 111, kTrans = 112 };
        int M = static_cast<int>(p.M), outer = static_cast<int>(p.outer()), inner = static_cast<int>(p.inner());
        cblas_sgemm(kRowMajor, kNoTrans, p.nn ? kNoTrans : kTrans, M, outer, inner, 1,
                    static_cast<const float *>(in.get()), inner, static_cast<const float *>(weights[next].get()),
                    p.nn ? outer : inner, 0, static_cast<float *>(out.get()), outer);
        next = (next + 1) % weights.size();
    };
    return work;
}

// The matmul primitive; layout=packed reorders the weight into the layout that it asks for, rows leaves it as it is. dtype=bf16:
// x and weight in bf16, y in fp32.
Work make_onednn(const Spec &spec) {
    using dnnl::memory;
    Product p = product(spec);
    bool packed = spec.word("layout", "rows") == "packed";
    int32_t dtype = dtype_of(spec.word("dtype", "f32"));
    auto type = dtype == L4J_F32 ? memory::data_type::f32 : memory::data_type::bf16;
    auto rows = p.nn ? memory::format_tag::ab : memory::format_tag::ba;
    memory::desc x({p.M, p.inner()}, type, memory::format_tag::ab),
        y({p.M, p.outer()}, memory::data_type::f32, memory::format_tag::ab);
    memory::desc w({p.inner(), p.outer()}, type, packed ? memory::format_tag::any : rows),
        stored({p.inner(), p.outer()}, type, rows);
    dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    dnnl::stream stream(engine);
    set_peer_threads(threads_of(spec)); // a primitive is made for a number of threads
#if DNNL_VERSION_MAJOR >= 3
    dnnl::matmul::primitive_desc chosen(engine, x, w, y);
#else
    dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(x, w, y), engine);
#endif
    double bytes = bytes_of(dtype) * static_cast<double>(p.K * p.N);
    auto in = random_values(dtype, p.M * p.inner()), out = random_values(L4J_F32, p.M * p.outer());
    std::vector<std::shared_ptr<void>> held;
    std::vector<memory> weights;
    for (int64_t c = copies_of(spec); c > 0; c--) {
        auto values = random_values(dtype, p.K * p.N);
        memory plain(stored, engine, values.get());
        if (chosen.weights_desc() == stored) {
            held.push_back(values);
            weights.push_back(plain);
        } else {
            weights.emplace_back(chosen.weights_desc(), engine);
            dnnl::reorder(plain, weights.back()).execute(stream, plain, weights.back());
            stream.wait();
        }
    }
    memory from(x, engine, in.get()), to(y, engine, out.get());
    dnnl::matmul primitive(chosen);
    Work work;
    work.flops = p.flops();
    if (reads_weights(p.M)) work.bytes = bytes;
    work.run = [=, next = size_t{0}]() mutable {
        primitive.execute(stream, {{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, weights[next]}, {DNNL_ARG_DST, to}});
        stream.wait();
        next = (next + 1) % weights.size();
        (void)held, (void)in, (void)out;
    };
    return work;
}
