"""Where a training step's time goes: share of each operation, its share of the limit, and the functions that take most of it.

perf samples the command line's process with call stacks. All threads of a queue work on one operation at a time, so the stacks of
the thread that calls the C ABI tell which; what it does between the calls is Java. Counted are whole steps: from the loss of the
second one to that of the last one.
"""
import collections, re, shutil, statistics, subprocess

from . import cases

HERTZ = 499
STACK_BYTES = 16384  # of each sample: more than the largest stack below an operation
TOKENS, LENGTH, RANK = 1024, 256, 8
HIDDEN, INNER, KV, HEADS, LAYERS, VOCABULARY = 576, 1536, 192, 9, 30, 49152
CALL = re.compile(r"l4j_(.+)_(forward|backward|step)")


class Skipped(Exception):
    """There is no profile, for the reason given."""


def work():
    """Of each operation in a step without checkpointing: (what the limit counts, how much), FLOPs or bytes moved at least."""
    projections = [(HIDDEN, HIDDEN), (HIDDEN, KV), (HIDDEN, KV), (HIDDEN, HIDDEN), (HIDDEN, INNER), (HIDDEN, INNER), (INNER, HIDDEN)]  # K, N
    frozen = 2 * TOKENS * LAYERS * sum(k * n for k, n in projections)
    low_rank = 2 * TOKENS * LAYERS * RANK * sum(k + n for k, n in projections)
    lowest = 2 * TOKENS * sum(k * n for k, n in projections[:3])  # nobody wants the gradient of the first block's input
    pairs = TOKENS * (LENGTH + 1) / 2 * HIDDEN * LAYERS
    row, inner, heads = 4 * TOKENS * HIDDEN, 4 * TOKENS * INNER, 4 * TOKENS * (HIDDEN + KV)
    parameters = LAYERS * RANK * sum(k + n for k, n in projections)
    return {
        "lora forward": ("flops", frozen + low_rank), "lora backward": ("flops", frozen - lowest + 2 * low_rank),
        "linear_cross_entropy forward": ("flops", 4 * TOKENS * HIDDEN * VOCABULARY),
        "attention forward": ("flops", 4 * pairs), "attention backward": ("flops", 10 * pairs),
        # plain and with the residual added; those of the backward pass are made again
        "rms_norm forward": ("bytes", row * (2 + 4 * 2 * LAYERS + 2 * 2 * LAYERS)), "rms_norm backward": ("bytes", row * (3 + 4 * (2 * LAYERS - 1))),
        "rope forward": ("bytes", LAYERS * 2 * heads), "rope backward": ("bytes", LAYERS * 2 * heads),
        "swiglu forward": ("bytes", 2 * LAYERS * 3 * inner), "swiglu backward": ("bytes", LAYERS * 5 * inner),
        "adamw step": ("bytes", 9 * 4 * parameters), "embedding forward": ("bytes", 1.5 * row)}


def record(command, environment, data):
    """Stacks of the thread that calls the library: [(seconds, functions of the library, innermost first)]."""
    if not shutil.which("perf"):
        raise Skipped("perf is not there")
    done = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "--call-graph", f"dwarf,{STACK_BYTES}", "-o", data, "--",
                           *map(str, command)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"perf record: {done.stderr[-500:]}")
    done = subprocess.run(["perf", "script", "-i", data, "--no-inline", "-F", "tid,time,ip,sym,dso"], capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"perf script: {done.stderr[-500:]}")
    threads = collections.defaultdict(list)
    for block in done.stdout.split("\n\n"):
        head, *frames = block.strip().split("\n")
        about = re.match(r"\s*(\d+)\s+([\d.]+):", head)
        if about:
            stack = [match.group(1) for match in (re.match(r"\s*[0-9a-f]+ (\S+) \(.*liblora4j", frame) for frame in frames) if match]
            threads[about.group(1)].append((float(about.group(2)), stack))
    calls = lambda samples: sum(called(stack) is not None for _, stack in samples)
    caller = max(threads.values(), key=calls, default=[])
    if calls(caller) < HERTZ:
        raise Skipped(f"perf saw {calls(caller)} samples of lora4j's operations, too few to tell")
    return caller


def called(stack):
    """The operation of the C ABI that is on a stack, such as "lora forward"."""
    match = CALL.fullmatch(stack[-1]) if stack else None
    return " ".join(match.groups()) if match else None


def profile(command, environment, data, seconds, workers, plan):
    """Rows of operation, share of the step, its milliseconds of a step of `seconds`, share of its limit (or None), and where."""
    samples = record(command, environment, data)
    losses = [time for time, stack in samples if called(stack) == "linear_cross_entropy forward"]
    begins = [time for before, time in zip([0, *losses], losses) if time - before > seconds / 4]
    if len(begins) < 3:
        raise Skipped(f"perf saw {len(begins)} steps; expected at least 3")
    stacks = [stack for time, stack in samples if begins[1] <= time < begins[-1]]
    counts = collections.Counter(called(stack) or "Java" for stack in stacks)
    limits = {}
    for unit, what in (("flops", "limit/what=fma"), ("bytes", f"limit/what=copy/mib={cases.memory_mib()}")):
        replies = [workers["native"].ask(f"{what}/threads={plan.threads}/time={plan.seconds}") for _ in range(3)]
        limits[unit] = statistics.median(reply[unit] / reply["seconds"] for reply in replies)
    amounts, rows = work(), []
    for operation, count in counts.most_common():
        share = count / len(stacks)
        unit, amount = amounts.get(operation, (None, 0))
        leaves = collections.Counter(stack[0] for stack in stacks if called(stack) == operation)
        rows.append({"operation": operation, "share": round(share, 4), "ms": round(1e3 * share * seconds, 2),
                     "of": unit, "limit": round(amount / (share * seconds) / limits[unit], 4) if unit else None,
                     "where": {leaf: round(n / count, 3) for leaf, n in leaves.most_common(4) if n >= 0.05 * count}})
    return {"rows": rows, "samples": len(stacks), "fma": limits["flops"], "copy": limits["bytes"]}
