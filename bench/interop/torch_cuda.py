#!/usr/bin/env python3
"""lora4j's fused LoRA linear on torch's CUDA tensors: torch's current stream, its memory, its graphs; nothing ever waits.

    python3 torch_cuda.py [--library PATH/liblora4j.so]      liblora4j_cuda.so beside it or in LORA4J_CUDA_LIBRARY

Prints a line for each property and ends with status 1 if one does not hold. Needs torch and a GPU; torch 2.11 and 2.15 were tried.
"""
import argparse, contextlib, pathlib, sys

import torch

from torch_lora import Lora4j, LoraLinear

M, K, N, R, SCALING = 200, 576, 1536, 16, 2.0


@contextlib.contextmanager
def waiting_is_an_error():
    """Whatever makes the host wait for the GPU, or copies from or to it, raises (torch.cuda.synchronize by name aside)."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Layer:
    """A frozen weight of one dtype with an fp32 adapter, as PEFT keeps it, and everything of one training step."""

    def __init__(self, l4j, dtype):
        generator = torch.Generator("cuda").manual_seed(1)
        random = lambda *shape: torch.randn(*shape, device="cuda", generator=generator)
        self.l4j, self.scaling = l4j, torch.tensor([SCALING], device="cuda")
        self.w, self.x, self.dy = (0.05 * random(N, K)).to(dtype), random(M, K).to(dtype), random(M, N).to(dtype)
        self.a, self.b = (0.05 * random(*shape) for shape in ((R, K), (N, R)))
        self.weight = l4j.weight(self.w)

    def step(self, x):
        """y and the gradients of x, A and B by lora4j."""
        with waiting_is_an_error():
            x, a, b = (t.detach().requires_grad_() for t in (x, self.a, self.b))
            y = LoraLinear.apply(self.l4j, self.weight, None, self.scaling, x, a, b)
            y.backward(self.dy)
        return y.detach(), x.grad, a.grad, b.grad

    def expected(self, x):
        """The same by torch in fp64."""
        x, a, b, w = (t.detach().double().requires_grad_() for t in (x, self.a, self.b, self.w))
        y = x @ w.t() + SCALING * (x @ a.t()) @ b.t()
        y.backward(self.dy.double())
        return y.detach(), x.grad, a.grad, b.grad


def worst(found, expected):
    return max(((f.double() - e).norm() / e.norm()).item() for f, e in zip(found, expected))


def equal(found, expected):
    return all(torch.equal(f, e) for f, e in zip(found, expected))


def properties(l4j, dtype, tolerance):
    """(what, whether it holds, figure)"""
    layer = Layer(l4j, dtype)
    first, other = layer.x, torch.flip(layer.x, (0,))
    reference = layer.step(first)
    torch.cuda.synchronize()
    error = worst(reference, layer.expected(first))
    yield "y, dx, dA and dB against torch in fp64", error <= tolerance, f"{error:.1e}, at most {tolerance:.0e}"

    strided = torch.randn(K, M, device="cuda").to(dtype).t()
    error = worst(layer.step(torch.cat((strided, strided), 1)[:, :K]), layer.expected(strided))
    yield "an input whose rows lie apart", error <= tolerance, f"{error:.1e}"

    streams = [torch.cuda.Stream() for _ in range(2)]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    results = []
    for i in range(20):
        with torch.cuda.stream(streams[i % 2]):
            results.append(layer.step(first))
    torch.cuda.synchronize()
    yield "two streams in turn, 20 steps", all(equal(r, reference) for r in results), "every bit"

    # A step on each stream in turn: the second takes what the first has computed, by torch's events alone.
    with torch.cuda.stream(streams[0]):
        doubled = layer.step(first)[1] * 2
    streams[1].wait_stream(streams[0])
    with torch.cuda.stream(streams[1]):
        chained = layer.step(doubled)
    torch.cuda.synchronize()
    yield "one stream's output is the other's input", equal(chained, layer.step(reference[1] * 2)), "every bit"

    fixed = first.clone()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=streams[0]):
        captured = layer.step(fixed)
    good = True
    for x in (first, other, first):
        fixed.copy_(x)
        graph.replay()
        torch.cuda.synchronize()
        good = good and equal(captured, layer.step(x))
    yield "captured and replayed in torch.cuda.CUDAGraph", good, "every bit, 3 inputs"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default=root / "native/build/release/liblora4j.so")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = False
    l4j = Lora4j(args.library, gpu=0)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    failed = 0
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 5e-3), (torch.float16, 1e-3)):
        for what, good, figure in properties(l4j, dtype, tolerance):
            failed += not good
            print(f"{'ok    ' if good else 'FAILED'} {str(dtype)[6:]}: {what} ({figure})", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
