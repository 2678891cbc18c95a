// kernel_bench: our kernels, OpenBLAS, oneDNN and the limits of the machine, timed in one process by Google Benchmark.
//
//   kernel_bench SPEC... [--benchmark_repetitions=9 --benchmark_enable_random_interleaving=true ...]
//       times what the specs say (spec.h; the families and their keys stand in work.h and its sources) and prints a table:
//       kernel_bench gemm/op=nt/m=512/k=576/n=576/who={ours,openblas,onednn} limit/what=fma
//   kernel_bench
//       reads requests from standard input, a line each, and answers each with a line of JSON. bench/run.py asks so, in turns with
//       other processes. A request is a spec (operands stay for the next time), "release" (forget them) or "info".
//
// Keys of every spec: threads (default: the CPUs of this process), time (seconds to spend at least, default 0.1). A time is the median
// of the iterations of one run, in wall-clock time. LORA4J_MAX_ISA, OPENBLAS_CORETYPE and ONEDNN_MAX_CPU_ISA cap the tiers.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>

#include "library.h"
#include "work.h"

namespace {

std::map<std::string, std::shared_ptr<Work>> works;

std::shared_ptr<Work> work_of(const Spec &spec) {
    std::shared_ptr<Work> &work = works[spec.text()];
    if (work) return work;
    spec.number("threads", 0);
    spec.real("time", 0);
    std::string who = spec.family() == "gemm" ? spec.word("who") : "";
    Work made = who == "openblas"               ? make_openblas(spec)
                : who == "onednn"               ? make_onednn(spec)
                : who == "ggml"                 ? make_ggml(spec)
                : who == "ours"                 ? make_product(spec)
                : spec.family() == "dequantize" ? make_dequantize(spec)
                : spec.family() == "quantize"   ? make_quantize(spec)
                : spec.family() == "lora"       ? make_lora(spec)
                : spec.family() == "loss"       ? make_loss(spec)
                : spec.family() == "limit"      ? make_limit(spec)
                : spec.family() == "gemm"
                    ? throw std::invalid_argument(spec.text() + ": who is ours, openblas, onednn or ggml")
                    : make_operation(spec);
    spec.expect_all_read();
    work = std::make_shared<Work>(std::move(made));
    return work;
}

void measure(benchmark::State &state, const Spec &spec, const Work &work) {
    set_peer_threads(threads_of(spec));
    std::vector<double> times;
    for (auto _ : state) {
        auto begin = std::chrono::steady_clock::now();
        work.run();
        times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        state.SetIterationTime(times.back());
    }
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    double median = times[times.size() / 2];
    state.counters["seconds"] = median;
    state.counters["least"] = *std::min_element(times.begin(), times.end());
    if (work.flops > 0) state.counters["GFLOP/s"] = 1e-9 * work.flops / median;
    if (work.values > 0) state.counters["Gvalue/s"] = 1e-9 * work.values / median;
    if (work.bytes > 0) state.counters["GB/s"] = 1e-9 * work.bytes / median;
}

void register_spec(const Spec &spec) {
    std::shared_ptr<Work> work = work_of(spec);
    benchmark::RegisterBenchmark(spec.text().c_str(),
                                 [spec, work](benchmark::State &state) { measure(state, spec, *work); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->MinTime(spec.real("time", 0.1));
}

// Keeps the result of a run for the answer to a request.
struct Keeper : benchmark::BenchmarkReporter {
    bool ReportContext(const Context &) override { return true; }
    void ReportRuns(const std::vector<Run> &runs) override { last = runs.back(); }
    Run last;
};

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
    return out + '"';
}

std::string info() {
    l4j_device_info device = device_info();
    return std::string("{\"cpu\": ") + quoted(device.cpu_name) + ", \"isa\": " + quoted(device.isa_name) +
           ", \"bf16_isa\": " + std::to_string(device.bf16_isa) +
           ", \"threads\": " + std::to_string(device.logical_cpus) + ", \"lora4j\": " + quoted(l4j_build_info()) +
           ", \"openblas\": " + quoted(openblas_about()) + ", \"onednn\": " + quoted(onednn_about()) + "}";
}

std::string answer(const std::string &request) {
    if (request == "info") return info();
    if (request == "release") {
        benchmark::ClearRegisteredBenchmarks();
        works.clear();
        return "{}";
    }
    Spec spec(request);
    benchmark::ClearRegisteredBenchmarks();
    register_spec(spec);
    Keeper keeper;
    benchmark::RunSpecifiedBenchmarks(&keeper, ".");
    const Work &work = *works.at(request);
    char text[200];
    snprintf(text, sizeof text, "{\"seconds\": %.9g, \"iterations\": %lld, \"flops\": %.17g, \"bytes\": %.17g}",
             static_cast<double>(keeper.last.counters.at("seconds")), static_cast<long long>(keeper.last.iterations),
             work.flops, work.bytes);
    return text;
}

} // namespace

int main(int argc, char **argv) {
    benchmark::Initialize(&argc, argv);
    try {
        if (argc > 1) {
            std::cout << info() << "\n";
            for (int i = 1; i < argc; i++) register_spec(Spec(argv[i]));
            benchmark::RunSpecifiedBenchmarks();
            return 0;
        }
    } catch (const std::exception &e) {
        std::cerr << e.what() << "\n";
        return 1;
    }
    for (std::string request; std::getline(std::cin, request);) {
        try {
            std::cout << answer(request) << std::endl;
        } catch (const std::exception &e) {
            std::cout << "{\"error\": " << quoted(e.what()) << "}" << std::endl;
        }
    }
}
