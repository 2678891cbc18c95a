"""What is timed beside what: one list of cases for each section, at the shapes of SmolLM2-135M and of 2048 and 4096 widths."""
import math, os

from .rounds import Case

WIDTHS = [(576, 576), (576, 1536), (1536, 576), (2048, 2048), (4096, 4096)]  # K, N
ROWS = [1, 8, 16, 64, 256, 512, 1024]
FEW = 16  # with so many rows, reading the weight is the limit


def cache_bytes():
    """The last cache; 32 MiB where the system does not tell."""
    return max(os.sysconf("SC_LEVEL3_CACHE_SIZE") if "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names else 0, 32 << 20)


def memory_mib():
    """More than the caches hold, but at most 1 GiB."""
    return min(4 * cache_bytes(), 1 << 30) >> 20


def copies(m, k, n):
    """Weights in turn, so that few rows find them in memory and not in a cache; one where arithmetic is the limit."""
    return math.ceil((memory_mib() << 20) / (4 * k * n)) if m <= FEW else 1


def limit(m):
    return ("native", f"limit/what=read/mib={memory_mib()}") if m <= FEW else ("native", "limit/what=fma")


def product(op, m, k, n):
    shape = f"gemm/op={op}/m={m}/k={k}/n={n}/copies={copies(m, k, n)}"
    entries = {"ours": ("native", f"{shape}/who=ours"), "ours packed": ("native", f"{shape}/who=ours/layout=packed"),
               "OpenBLAS": ("native", f"{shape}/who=openblas"), "oneDNN": ("native", f"{shape}/who=onednn"), "torch": ("torch", shape)}
    if m in (1, 512) and n < 10000:
        for dtype in ("bf16", "f16"):
            entries[f"ours {dtype}"] = ("native", f"{shape}/who=ours/weight={dtype}")
            entries[f"ours {dtype} packed"] = ("native", f"{shape}/who=ours/weight={dtype}/layout=packed")
        if op == "nt":  # torch's own for dX has no fast path below AVX-512: seconds a call
            entries["torch bf16"] = ("torch", f"{shape}/dtype=bf16")
    entries["limit"] = limit(m)
    return Case(f"{op} {m}x{k}x{n}", entries, op=op, m=m, k=k, n=n)


def gemm(machine, quick):
    widths, rows = (WIDTHS[1::2], [1, 8, 64, 512]) if quick else (WIDTHS, ROWS)
    for k, n in widths:
        for m in rows:
            for op in ("nt", "nn"):
                yield product(op, m, k, n)
    if not quick:
        for m in (1, 1024):
            yield product("nt", m, 576, 49152)


def lora(machine, quick):
    shapes = [(512, k, [n]) for k, n in WIDTHS] + [(64, 576, [576]), (512, 576, [576, 192, 192]), (512, 576, [1536, 1536]),
                                                   (512, 4096, [4096, 1024, 1024])]
    for m, k, widths in shapes[:1] + shapes[3:4] + shapes[6:7] if quick else shapes:
        shape = f"lora/m={m}/k={k}/n={','.join(map(str, widths))}"
        entries = {"frozen": ("native", f"{shape}/r=0"), "r=16": ("native", f"{shape}/r=16"), "r=16 p=0.1": ("native", f"{shape}/r=16/p=0.1"),
                   "torch frozen": ("torch", f"{shape}/r=0"), "PEFT r=16": ("torch", f"{shape}/r=16"), "PEFT r=16 p=0.1": ("torch", f"{shape}/r=16/p=0.1"),
                   "r=8": ("native", f"{shape}/r=8"), "PEFT r=8": ("torch", f"{shape}/r=8"), "limit": limit(m)}
        if not machine.peft:
            entries = {label: entry for label, entry in entries.items() if "PEFT" not in label}
        # Forward and dX of the frozen layer are 4MKN; S and S·Bᵀ, dS and dS·A, dA and dB are 2Mr(K+N) each.
        share = {r: 1.5 * r * sum(k + n for n in widths) / (k * sum(widths)) for r in (8, 16)}
        yield Case(f"{m}x{k}x{'+'.join(map(str, widths))}", entries, m=m, k=k, n=widths, flop_share=share)


def attention(machine, quick):
    for b, t in [(4, 256), (1, 2048)]:
        for which in ("forward", "backward"):
            spec = f"attention/b={b}/t={t}/pass={which}"
            yield Case(f"{which} {b}x{t}", {"ours": ("native", spec), "torch": ("torch", spec), "limit": ("native", "limit/what=fma")})
    spec = "attention/t=1/keys=16384"  # 25 MB of keys and values
    yield Case("decode 1 of 16384 keys", {"ours": ("native", spec), "torch": ("torch", spec), "limit": ("native", f"limit/what=read/mib={memory_mib()}")})


def loss(machine, quick):
    m = 256 if quick else 1024
    spec = f"loss/m={m}/k=576/v=49152"
    yield Case(f"linear_cross_entropy {m}x576x49152", {
        "ours": ("native", spec), "ours packed": ("native", f"{spec}/layout=packed"), "ours bf16 packed": ("native", f"{spec}/weight=bf16/layout=packed"),
        "torch": ("torch", spec), "torch fused": ("torch", f"{spec}/fused=1"), "limit": ("native", "limit/what=fma")})


def elementwise(machine, quick):
    copy = ("native", f"limit/what=copy/mib={memory_mib()}")
    for spec, torch in (("rms_norm", True), ("rms_norm/residual=1", False), ("rms_norm/pass=backward", False), ("rope", False), ("rope/interleaved=1", False),
                        ("swiglu", True), ("swiglu/pass=backward", False), ("axpby", False), ("embedding", False), ("adamw", True)):
        yield Case(spec.replace("/", " "), {"ours": ("native", spec), **({"torch": ("torch", spec)} if torch else {}), "limit": copy})


def scaling(machine, quick):
    """One shape on more and more threads, in fp32 and, where the CPU has an instruction for it, in bf16."""
    counts = [t for t in (1, 2, 4, 8, 16, 32, 64) if t < machine.threads] + [machine.threads]
    bf16 = machine.isa != "avx2" and machine.flags & {"amx_bf16", "avx512_bf16"}
    for op in ("nt", "nn"):
        chosen = counts if op == "nt" and not quick else sorted({counts[0], counts[-1]})
        shape, entries, threads = f"gemm/op={op}/m=512/k=4096/n=4096", {}, {}
        for t in chosen:
            one = {f"ours {t}": ("native", f"{shape}/who=ours"), f"torch {t}": ("torch", shape), f"limit {t}": ("native", "limit/what=fma")}
            if bf16:
                one |= {f"ours bf16 {t}": ("native", f"{shape}/who=ours/layout=packed/compute=bf16"), f"torch bf16 {t}": ("torch", f"{shape}/dtype=bf16"),
                        f"bf16 limit {t}": ("native", "limit/what=bf16")}
            entries.update(one)
            threads.update({label: t for label in one})
        yield Case(f"{op} 512x4096x4096", entries, threads=threads, counts=chosen, op=op, amx="amx_bf16" in machine.flags, cores=machine.cores())


SECTIONS = {"gemm": gemm, "lora": lora, "attention": attention, "loss": loss, "elementwise": elementwise, "scaling": scaling}
