#!/usr/bin/env python3
"""The peers of bench/native/gpu_lora.cpp, through PyTorch: cuBLAS's products, and the low-rank linear eager and compiled.

    python3 bench/suite/gpu_torch.py [--no_compile]

Answers each line of standard input by a round over SHAPES: a line of JSON for each, microseconds of one call, and an empty line. As
there: BF16 with fp32 sums, three sets of operands in turns by graph replay, the median of 20.
"""
import json, sys

import torch
import torch.nn.functional as F

R, SCALING, SETS = 16, 2.0, 3
SHAPES = [(8192, 4096, 4096, 0), (8192, 4096, 4096, 0.1), (8192, 4096, 14336, 0), (8192, 2048, 8192, 0), (2048, 4096, 4096, 0),
          (2048, 4096, 4096, 0.1), (512, 4096, 4096, 0), (512, 576, 1536, 0), (64, 4096, 4096, 0)]


def graph_of(run):
    """Captures run; it has run before on the same stream, so that kernels are chosen and compiled."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()
    return graph, stream


def microseconds(graph, stream, repeats=20):
    times = []
    with torch.cuda.stream(stream):
        for i in range(repeats + 2):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            if i > 1:
                times.append(start.elapsed_time(end) * 1e3 / SETS)
    return sorted(times)[repeats // 2]


def matrix(rows, cols, scale=1.0):
    return torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) * scale


def lora(x, w, a, b, p):
    """PEFT's expression."""
    return F.linear(x, w) + SCALING * F.linear(F.linear(F.dropout(x, p), a), b)


def both(function, x, w, a, b, dy, p):
    x, a, b = (t.detach().requires_grad_() for t in (x, a, b))
    return torch.autograd.grad(function(x, w, a, b, p), (x, a, b), dy)


def measure(m, k, n, p, compiled):
    sets = [(matrix(m, k), matrix(n, k, 0.02), matrix(R, k, 0.02), matrix(n, R, 0.02), matrix(m, n), matrix(m, n), matrix(m, k)) for _ in range(SETS)]
    times = {}

    def each(name, run):
        try:
            times[name] = round(microseconds(*graph_of(lambda: [run(*operands) for operands in sets])), 2)
        except Exception as e:  # of one peer at one shape: shown in its place
            times[name] = f"failed: {type(e).__name__}: {str(e).splitlines()[0][:200]}"

    if p == 0:
        each("cublas_forward", lambda x, w, a, b, dy, y, dx: torch.matmul(x, w.t(), out=y))
        each("cublas_dx", lambda x, w, a, b, dy, y, dx: torch.matmul(dy, w, out=dx))
    for name, function in (("eager", lora), ("compiled", compiled)):
        if function is None:
            continue
        def forward(x, w, a, b, dy, y, dx):
            with torch.no_grad():
                function(x, w, a, b, p)

        each(f"{name}_forward", forward)
        each(f"{name}_both", lambda x, w, a, b, dy, y, dx: both(function, x, w, a, b, dy, p))
    return {"M": m, "K": k, "N": n, "r": R, "dropout": p, **times}


def main():
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch._dynamo.config.recompile_limit = 4 * len(SHAPES)  # each shape is compiled once, with and without gradients
    compiled = None if "--no_compile" in sys.argv[1:] else torch.compile(lora, dynamic=False)
    properties = torch.cuda.get_device_properties(0)
    print(json.dumps({"gpu": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1), "multiprocessors": properties.multi_processor_count,
                      "torch": torch.__version__, "cuda": torch.version.cuda}), flush=True)
    for _ in sys.stdin:
        for shape in SHAPES:
            print(json.dumps(measure(*shape, compiled)), flush=True)
            torch.cuda.empty_cache()
        print(flush=True)


if __name__ == "__main__":
    main()
