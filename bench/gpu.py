#!/usr/bin/env python3
"""Measures the low-rank linear on a GPU beside cuBLAS, PyTorch eager and torch.compile, in turns of one run.

    python3 bench/gpu.py --gpu_lora PATH [--rounds 3] [--no_compile]

gpu_lora is built by the target of that name (bench/native) and needs liblora4j_cuda.so; the Python that runs this needs torch.
Writes bench/results/<gpu>.json, .md and .svg. bench/README.md says what is measured.
"""
import argparse, datetime, json, os, pathlib, re, statistics, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
from suite import chart, machine  # noqa: E402

OURS = {"frozen_forward_us": "frozen forward", "frozen_dx_us": "frozen dx", "forward_us": "forward", "backward_us": "backward"}


def key(line):
    return line["M"], line["K"], line["N"], line["dropout"]


def ours(program):
    """A round of ours: shape -> {what: microseconds}."""
    done = subprocess.run([program], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program} ended with status {done.returncode}: {done.stderr[-1000:]}")
    return {key(line): {what: line[name] for name, what in OURS.items()} for line in map(json.loads, done.stdout.splitlines())}


class Peers:
    def __init__(self, compile):
        command = [sys.executable, ROOT / "bench/suite/gpu_torch.py", *([] if compile else ["--no_compile"])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.line())

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            sys.exit(f"suite/gpu_torch.py ended with status {self.process.wait()}")
        return text.strip()

    def round(self):
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        found = {}
        while text := self.line():
            line = json.loads(text)
            found[key(line)] = {name: value for name, value in line.items() if name.split("_")[0] in ("cublas", "eager", "compiled")}
        return found


def collect(rounds):
    """Medians over rounds of {shape: {what: µs}}; what failed keeps its text."""
    merged = {}
    for shape in rounds[0]:
        merged[shape] = {}
        for what in rounds[0][shape]:
            values = [r[shape][what] for r in rounds]
            bad = next((v for v in values if isinstance(v, str)), None)
            merged[shape][what] = {"error": bad} if bad else {"median_us": round(statistics.median(values), 2), "samples_us": values}
    return merged


def value(row, what):
    return row.get(what, {}).get("median_us")


def rows_of(mine, peers):
    rows = []
    for shape, figures in mine.items():
        m, k, n, p = shape
        frozen = {what: peers[(m, k, n, 0)][what] for what in ("cublas_forward", "cublas_dx")}
        rows.append({"M": m, "K": k, "N": n, "r": 16, "dropout": p, "entries": {**{f"ours {what}": entry for what, entry in figures.items()}, **frozen, **peers[shape]}})
    return rows


def ratio(row, *what):
    """Forward + backward over cuBLAS's frozen forward + dx."""
    entries = row["entries"]
    top, bottom = [value(entries, w) for w in what], [value(entries, "cublas_forward"), value(entries, "cublas_dx")]
    return sum(top) / sum(bottom) if None not in top + bottom else None


def markdown(results, name):
    about = results["machine"]
    lines = [f"# {about['gpu']}: the low-rank linear beside cuBLAS, PyTorch eager and torch.compile", "",
             f"{about['memory_gib']} GiB, {about['multiprocessors']} multiprocessors, driver {about['driver']}, clocks {about['clocks']}; torch {about['torch']} (CUDA {about['cuda']});"
             f" {results['date']}, commit {results['commit']}. Written by `bench/gpu.py`; every sample is in [{name}.json]({name}.json), a chart in [{name}.svg]({name}.svg).", "",
             f"Microseconds of one call: BF16 with fp32 sums, r = 16, one projection; three sets of operands in turns by graph replay, the median of 20, then of {results['rounds']} rounds"
             " in turns with the peers. \"LoRA\" is forward with s and B, and backward with dx, dA and dB; the last three columns are its sum over cuBLAS's frozen forward + dx.", "",
             "| M×K×N | dropout | frozen fwd, ours | cuBLAS | frozen dx, ours | cuBLAS | LoRA fwd, ours | eager | compiled | LoRA bwd, ours | LoRA fwd + bwd, ours | eager | compiled"
             " | ours ÷ frozen | eager ÷ frozen | compiled ÷ frozen |", "|---" * 16 + "|"]
    for row in results["rows"]:
        e = row["entries"]
        cell = lambda what: f"{value(e, what):.1f}" if value(e, what) else e.get(what, {}).get("error", "").replace("|", "/")[:60]
        whole = value(e, "ours forward") + value(e, "ours backward")
        ratios = [ratio(row, "ours forward", "ours backward"), ratio(row, "eager_both"), ratio(row, "compiled_both")]
        lines.append("| " + " | ".join([f"{row['M']}×{row['K']}×{row['N']}", f"{row['dropout']:g}", cell("ours frozen forward"), cell("cublas_forward"), cell("ours frozen dx"), cell("cublas_dx"),
                                        cell("ours forward"), cell("eager_forward"), cell("compiled_forward"), cell("ours backward"), f"{whole:.1f}", cell("eager_both"), cell("compiled_both"),
                                        *(f"{r:.2f}" if r else "" for r in ratios)]) + " |")
    if results["java"]:
        lines += ["", "Through Java (`GpuBenchmark`: graphs of a call on each of three layers), and `cublasGemmEx` by JavaCPP's preset on the same stream and"
                  " memory; beside it the same operation from C++ by graph replay:", "", "| M×K×N | cuBLAS, Java | frozen fwd, Java | C++ | LoRA fwd, Java | C++ | LoRA fwd + bwd, Java | C++ |", "|---" * 8 + "|"]
        native = {f"{row['M']}x{row['K']}x{row['N']}": row["entries"] for row in results["rows"] if not row["dropout"]}
        for shape, figures in results["java"].items():
            e = native[shape]
            whole = value(e, "ours forward") + value(e, "ours backward")
            lines.append("| " + " | ".join([shape.replace("x", "×"), *(f"{v:.1f}" for v in (figures["cublas"], figures["frozenForward"], value(e, "ours frozen forward"), figures["loraForward"],
                                            value(e, "ours forward"), figures["loraForwardBackward"], whole))]) + " |")
    return "\n".join(lines) + "\n"


def jmh(file):
    """shape -> {method: microseconds}"""
    found = {}
    for line in json.loads(file.read_text()) if file and file.exists() else []:
        found.setdefault(line["params"]["shape"], {})[line["benchmark"].rsplit(".", 1)[1]] = line["primaryMetric"]["score"]
    return found


def drawing(results):
    """The speed of each as a share of cuBLAS's frozen forward + dx, which is the limit."""
    rows = []
    for row in results["rows"]:
        shares = {"ours, LoRA": ratio(row, "ours forward", "ours backward"), "torch eager, LoRA": ratio(row, "eager_both"), "torch.compile, LoRA": ratio(row, "compiled_both"),
                  "ours, frozen": ratio(row, "ours frozen forward", "ours frozen dx")}
        rows.append((f"{row['M']}×{row['K']}×{row['N']}" + (f" p={row['dropout']:g}" if row["dropout"] else ""), {label: 1 / r for label, r in shares.items() if r}))
    return chart.page(f"{results['machine']['gpu']}: forward + backward", [("speed in percent of cuBLAS's frozen forward + dx", rows)])


def smi(query):
    try:
        return subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu_lora", required=True, help="the built program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jmh", type=pathlib.Path, help="what JMH has written of GpuBenchmark (-rf json): a table of its own")
    parser.add_argument("--no_compile", action="store_true", help="without torch.compile, which takes a minute")
    parser.add_argument("--out_folder", type=pathlib.Path, default=ROOT / "bench/results", help="where <gpu>.json, .md and .svg go (default bench/results)")
    args = parser.parse_args()
    peers = Peers(not args.no_compile)
    mine, theirs = [], []
    for i in range(args.rounds):
        mine.append(ours(args.gpu_lora))
        theirs.append(peers.round())
        print(f"round {i + 1} of {args.rounds}", flush=True)
    peers.process.stdin.close()
    about = {**peers.about, "driver": smi("driver_version"), "clocks": smi("clocks.sm,clocks.mem,power.limit")}
    results = {"machine": about, "date": datetime.date.today().isoformat(), "commit": machine.commit(ROOT), "rounds": args.rounds, "java": jmh(args.jmh), "rows": rows_of(collect(mine), collect(theirs))}
    out = args.out_folder / re.sub(r"[^a-z0-9]+", "-", about["gpu"].lower()).strip("-")
    out.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({k: v for k, v in results.items() if k != "rows"}, indent=1)[:-2]
    rows = ",\n".join("  " + json.dumps(row) for row in results["rows"])
    out.with_name(out.name + ".json").write_text(f'{head},\n "rows": [\n{rows}\n ]\n}}\n')
    text = markdown(results, out.name)
    out.with_name(out.name + ".md").write_text(text)
    out.with_name(out.name + ".svg").write_text(drawing(results))
    print(text)
    failed = [f"{row['M']}x{row['K']}x{row['N']} {what}" for row in results["rows"] for what, entry in row["entries"].items() if "error" in entry]
    if failed:
        sys.exit("FAILED: " + ", ".join(failed))


if __name__ == "__main__":
    main()
