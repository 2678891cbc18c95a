#!/usr/bin/env python3
"""cuBLAS, through PyTorch, on the shapes of bench/native/gpu_lora.cpp: X·Wᵀ and dY·W in BF16 with fp32 sums.

Three sets of operands in turns by graph replay, the median of 20; one JSON object for each shape, microseconds of one product.
"""

import json

import torch

SHAPES = [
    (8192, 4096, 4096),
    (8192, 4096, 14336),
    (8192, 2048, 8192),
    (2048, 4096, 4096),
    (512, 4096, 4096),
    (512, 576, 1536),
    (64, 4096, 4096),
]


def microseconds(run, calls, repeats=20):
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        run()
        run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()
        times = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e3 / calls)
    return round(sorted(times)[repeats // 2], 1)


def matrix(rows, cols, scale=1.0):
    return torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) * scale


def main():
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    for m, k, n in SHAPES:
        sets = [(matrix(m, k), matrix(n, k, 0.02), matrix(m, n), matrix(m, n), matrix(m, k)) for _ in range(3)]

        def forward():
            for x, w, _, y, _ in sets:
                torch.matmul(x, w.t(), out=y)

        def backward():
            for _, w, dy, _, dx in sets:
                torch.matmul(dy, w, out=dx)

        times = {"forward_us": microseconds(forward, len(sets)), "dx_us": microseconds(backward, len(sets))}
        print(json.dumps({"M": m, "K": k, "N": n, **times}), flush=True)


if __name__ == "__main__":
    main()
