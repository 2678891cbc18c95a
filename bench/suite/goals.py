"""What is to be shown of the CPU kernels, computed from the figures of one run: (line, what, figure, goal, reached or None)."""
import math


def is_limit(label):
    return "limit" in label


def time(case, label):
    """Median seconds; None where the entry is not there or failed."""
    return case["entries"].get(label, {}).get("median")


def rate(entry, unit):
    return entry[unit] / entry["median"] if entry.get(unit) and entry.get("median") else None


def limit_of(case, label):
    """The entry of the limit that stands beside an entry: 'limit', 'limit 8' beside 'ours 8', 'bf16 limit 8' beside 'ours bf16 8'."""
    count = label.rsplit(" ", 1)[-1]
    if not count.isdigit():
        return case["entries"].get("limit", {})
    return case["entries"].get(f"bf16 limit {count}" if " bf16 " in label else f"limit {count}", {})


def share(case, label):
    """Share of the limit that an entry reaches, of FLOPs or bytes as the limit counts; None without both."""
    limit, entry = limit_of(case, label), case["entries"].get(label, {})
    unit = "bytes" if limit.get("bytes") else "flops"
    if unit == "flops" and not entry.get("flops"):
        # a peer on the same work as ours
        entry = {**entry, "flops": next((e["flops"] for l, e in case["entries"].items() if e.get("flops") and not is_limit(l)), None)}
    if unit == "bytes" and not entry.get("bytes"):
        entry = {**entry, "bytes": case["entries"].get("ours", {}).get("bytes")}
    top, own = rate(limit, unit), rate(entry, unit)
    return own / top if top and own else None


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


class Lines(list):
    """Goals in order. `worst` takes (value, name of the case) and judges the worst."""

    def at_least(self, line, what, values, goal, form):
        self.worst(line, what, values, goal, form, min, lambda found: found >= goal, "≥")

    def at_most(self, line, what, values, goal, form):
        self.worst(line, what, values, goal, form, max, lambda found: found <= goal, "≤")

    def worst(self, line, what, values, goal, form, pick, judge, sign):
        values = [(value, name) for value, name in values if value is not None]
        if not values:
            return
        found, name = pick(values)
        figure = form.format(found) + (f" (worst of {len(values)}: {name})" if len(values) > 1 else "")
        self.append((line, what, figure, f"{sign} {form.format(goal)}", judge(found)))


PERCENT, TIMES = "{:.1%}", "{:.2f}×"


def gemm(lines, cases):
    head = lambda case: case["n"] > 10000
    for label in ("ours", "ours packed"):
        of_peak = lambda test: [(share(c, label), c["name"]) for c in cases if test(c) and not head(c)]
        lines.at_least("1", f"{label}, M ≥ 256, of the FMA peak", of_peak(lambda c: c["m"] >= 256), 0.85, PERCENT)
        lines.at_least("1", f"{label}, M = 64, of the FMA peak", of_peak(lambda c: c["m"] == 64), 0.75, PERCENT)
        ratios = [best_peer(c) / time(c, label) for c in cases if c["m"] >= 64 and best_peer(c) and time(c, label)]
        lines.at_least("1", f"{label}, M ≥ 64, beside the better of torch and OpenBLAS, geometric mean of {len(ratios)}", [(geometric_mean(ratios), "")], 1.15, TIMES)
        few = [(best_peer(c) / time(c, label), c["name"]) for c in cases if c["m"] == 8 and min(c["k"], c["n"]) >= 2048 and best_peer(c) and time(c, label)]
        lines.at_least("1", f"{label}, M = 8, beside the better of them", few, 3, TIMES)
        lines.at_least("1", f"{label}, M = 1, of the read bandwidth", of_peak(lambda c: c["m"] == 1), 0.9, PERCENT)
    for dtype in ("bf16", "f16"):
        for layout in ("", " packed"):
            values = [(time(c, f"ours {dtype}{layout}") / time(c, f"ours{layout}"), c["name"]) for c in cases
                      if c["m"] == 512 and time(c, f"ours {dtype}{layout}") and time(c, f"ours{layout}")]
            lines.at_most("3", f"weights in {dtype}{layout}, M = 512, beside fp32", values, 1.05, TIMES)


def best_peer(case):
    times = [time(case, peer) for peer in ("torch", "OpenBLAS")]
    return min(times) if all(times) else None


def lora(lines, cases):
    def ratio(top, bottom, test, less=lambda c: 0):
        return [(time(c, top) / time(c, bottom) - less(c), c["name"]) for c in cases if test(c) and time(c, top) and time(c, bottom)]

    single = lambda c: len(c["n"]) == 1
    flops = lambda c: 1 + c["flop_share"]["16"]
    lines.at_most("2", "r = 16, M = 512: overhead over the frozen layer, less the FLOP share", ratio("r=16", "frozen", lambda c: c["m"] == 512, flops), 0.03, PERCENT)
    lines.at_least("2", "beside PEFT, 576 widths", ratio("PEFT r=16", "r=16", lambda c: single(c) and c["k"] == c["n"][0] == 576), 1.35, TIMES)
    lines.at_least("2", "beside PEFT, 2048 to 4096", ratio("PEFT r=16", "r=16", lambda c: single(c) and c["k"] >= 2048), 1.2, TIMES)
    lines.at_most("2", "dropout 0.1 beside none", ratio("r=16 p=0.1", "r=16", lambda c: True, lambda c: 1), 0.03, PERCENT)


def kernels(lines, section, cases):
    for label in ("ours", "ours packed", "ours bf16 packed"):
        values = [(share(c, label), c["name"]) for c in cases if label in c["entries"]]
        lines.at_least("kernels", f"{section}, {label}, of the limit", values, 0.8, PERCENT)


def step(lines, cases):
    goals = {"stored bf16": (0.48, 0.28), "stored fp32": (None, 0.33), "stored bf16, checkpointing": (0.52, 0.30)}
    for case in cases:
        ours, peer = case["entries"].get("lora4j", {}), case["entries"].get("PEFT", {})
        if "median" not in ours or "median" not in peer:
            continue
        seconds, memory = goals[case["name"]]
        if seconds:
            lines.at_most("4", f"step, {case['name']}: time beside PEFT", [(ours["median"] / peer["median"], "")], seconds, TIMES)
        lines.at_most("4", f"step, {case['name']}: peak RSS beside PEFT", [(ours["peak_rss_gib"] / peer["peak_rss_gib"], "")], memory, TIMES)


def generate(lines, cases):
    goals = {"prefill": {"f32": 1.8, "f16": 1.5}, "decode": dict.fromkeys(("f32", "f16", "bf16"), 1.1)}
    for case in cases:
        ours, goal = time(case, "lora4j"), goals[case["part"]].get(case["dtype"])
        for peer in ("llama.cpp", "torch"):
            if ours and goal and time(case, peer):
                lines.at_least("5", f"{case['name']}: tokens/s beside {peer}", [(time(case, peer) / ours, "")], goal, TIMES)


def scaling(lines, cases):
    for case in cases:
        op, most, cores = case["op"], case["counts"][-1], case["cores"]
        if most > 2 and time(case, "ours 1") and time(case, f"ours {most}"):
            efficiency = time(case, "ours 1") / (cores * time(case, f"ours {most}"))
            lines.at_least("6", f"{op}: parallel efficiency, {most} threads on {cores} cores by the system's word, M = 512, 4096²", [(efficiency, "")], 0.8, PERCENT)
            peak = share(case, f"ours {most}") / share(case, "ours 1") if share(case, f"ours {most}") and share(case, "ours 1") else None
            lines.at_least("6", f"{op}: the same, of the FMA peak's own scaling to {most} threads", [(peak, "")], 0.8, PERCENT)
        beside(lines, case, f"{op}: fp32 beside torch, {most} threads", f"torch {most}", f"ours {most}", 1.1)
        beside(lines, case, f"{op}: bf16 beside torch's, {most} threads", f"torch bf16 {most}", f"ours bf16 {most}", 1.2)
        if case["amx"]:
            lines.at_least("6", f"{op}: bf16, of our own TMUL loop, {most} threads", [(share(case, f"ours bf16 {most}"), "")], 0.45, PERCENT)


def beside(lines, case, what, peer, ours, goal):
    if time(case, peer) and time(case, ours):
        lines.at_least("6", what, [(time(case, peer) / time(case, ours), "")], goal, TIMES)


def java(lines, cases):
    """What the bindings cost. The peers' own ratio stands in the table: how far two processes differ at all."""
    values = [(time(c, top) / time(c, bottom), c["name"]) for top, bottom in (("Java", "ours"), ("frozen, Java", "frozen"), ("r=16, Java", "r=16"))
              for c in cases if time(c, top) and time(c, bottom)]
    lines.at_most("bindings", "through Java beside C++", values, 1.03, TIMES)
    ratios = [value for value, _ in values]
    lines.at_most("bindings", f"the same, geometric mean of {len(ratios)}", [(geometric_mean(ratios), "")], 1.01, TIMES)


SECTIONS = {"gemm": gemm, "lora": lora, "step": step, "generate": generate, "scaling": scaling, "java": java}


def judge(sections):
    lines = Lines()
    for name, section in sections.items():
        cases = section["cases"]
        if name in ("attention", "loss", "elementwise"):
            kernels(lines, name, cases)
        elif name in SECTIONS:
            SECTIONS[name](lines, cases)
    return sorted(lines, key=lambda goal: goal[0])
