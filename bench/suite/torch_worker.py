"""PyTorch's and PEFT's side of the kernels: answers specs as kernel_bench does (see bench/native/main.cpp), a line of JSON each."""
import json, os, statistics, sys, time

import torch
import torch.nn.functional as F

from spec import Spec

works = {}


def dtype(spec):
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[spec.get("dtype", "f32")]


def in_turn(weights, run):
    state = [0]

    def next_one():
        state[0] = (state[0] + 1) % len(weights)
        run(weights[state[0]])

    return next_one


def gemm(spec):
    m, k, n = (spec.number(key) for key in "mkn")
    weight = torch.randn(n, k, dtype=dtype(spec))
    weights = [weight.clone() for _ in range(spec.number("copies", 1))]
    if spec["op"] == "nt":
        x = torch.randn(m, k, dtype=dtype(spec))
        return in_turn(weights, lambda w: F.linear(x, w))
    dy = torch.randn(m, n, dtype=dtype(spec))
    return in_turn(weights, lambda w: torch.mm(dy, w))


def lora(spec):
    """nn.Linear layers on one input, with PEFT's adapter when r > 0: the pass named, through autograd."""
    m, k, r = spec.number("m"), spec.number("k"), spec.number("r")
    widths = [int(n) for n in spec["n"].split(",")]
    module = torch.nn.Module()
    names = [f"projection{i}" for i in range(len(widths))]
    for name, n in zip(names, widths):
        setattr(module, name, torch.nn.Linear(k, n, bias=False).requires_grad_(False))
    if r:
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=r, lora_alpha=2 * r, lora_dropout=float(spec.get("p", 0)), target_modules=names, init_lora_weights=False)
        module = inject_adapter_in_model(config, module)
    module.train()
    layers = [getattr(module, name) for name in names]
    trained = [p for p in module.parameters() if p.requires_grad]
    x = torch.randn(m, k, requires_grad=True)
    gradients = [torch.randn(m, n) for n in widths]

    def run():
        outputs = [layer(x) for layer in layers]
        if spec.get("pass", "both") == "both":
            torch.autograd.backward(outputs, gradients)
            x.grad = None
            for p in trained:
                p.grad = None

    return run


def loss(spec):
    """The gradient of x of linear + cross entropy: PyTorch's own fused function where it has one."""
    m, k, v = (spec.number(key) for key in "mkv")
    x = (0.1 * torch.randn(m, k)).requires_grad_(True)
    weight, targets = torch.randn(v, k), torch.arange(m) * 7919 % v
    fused = getattr(F, "linear_cross_entropy", None) if spec.get("fused") == "1" else None

    def run():
        value = fused(x, weight, targets, reduction="sum") if fused else F.cross_entropy(F.linear(x, weight), targets, reduction="sum")
        value.backward()
        x.grad = None

    return run


def attention(spec):
    b, t = spec.number("b", 1), spec.number("t")
    heads, kv, d, keys = spec.number("heads", 9), spec.number("kv", 3), spec.number("d", 64), spec.number("keys", spec.number("t"))
    backward = spec.get("pass") == "backward"
    q = torch.randn(b, heads, t, d, requires_grad=backward)
    k, v = (torch.randn(b, kv, keys, d, requires_grad=backward) for _ in range(2))
    attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=t == keys, enable_gqa=True)
    if not backward:
        return attend
    out, gradient = attend(), torch.randn(b, heads, t, d)
    return lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)


def rms_norm(spec):
    x, weight = torch.randn(*spec.rows()), torch.randn(spec.rows()[1])
    return lambda: F.rms_norm(x, weight.shape, weight, 1e-5)


def swiglu(spec):
    gate, up = torch.randn(*spec.rows()), torch.randn(*spec.rows())
    return lambda: F.silu(gate) * up


def adamw(spec):
    parameters = [torch.randn(spec.number("n", 40000), requires_grad=True) for _ in range(spec.number("tensors", 210))]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0, fused=True)
    for p in parameters:
        p.grad = torch.randn_like(p)

    def run():
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return run


def info():
    about = {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    about["onednn"] = next((line.strip(" -") for line in torch.__config__.show().splitlines() if "MKL-DNN" in line), "none")
    try:
        import peft

        about["peft"] = peft.__version__
    except ImportError:
        about["peft"] = "none"
    return about


def answer(request):
    if request == "info":
        return info()
    if request == "release":
        works.clear()
        return {}
    spec = Spec(request)
    torch.set_num_threads(spec.number("threads", len(os.sched_getaffinity(0))))
    if request not in works:
        torch.manual_seed(0)
        with torch.enable_grad():
            works[request] = globals()[spec.family](spec)
    run, seconds, times = works[request], float(spec.get("time", 0.1)), []
    trains = spec.family in ("lora", "loss", "adamw") or spec.get("pass") == "backward"
    with torch.enable_grad() if trains else torch.inference_mode():
        begin = time.perf_counter()
        run()
        once = time.perf_counter() - begin
        if once >= seconds:
            times.append(once)  # too long to be repeated: what a first run costs more does not show
        while sum(times) < seconds:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    reply = {"seconds": statistics.median(times), "iterations": len(times)}
    if spec.family == "gemm" and spec.number("m") <= 16:  # reading the weight is the limit
        reply["bytes"] = dtype(spec).itemsize * spec.number("k") * spec.number("n")
    return reply


def main():
    for line in sys.stdin:
        try:
            reply = answer(line.strip())
        except Exception as e:  # the asker reports it beside the other results
            reply = {"error": f"{line.strip()}: {type(e).__name__}: {e}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
