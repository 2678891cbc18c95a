#!/usr/bin/env python3
"""Measures lora4j beside its peers and the machine's limits, in interleaved rounds of one run.

    python3 bench/run.py                              everything, each side at its best tier
    python3 bench/run.py --isa avx2 --threads 2       every side capped to AVX2
    python3 bench/run.py --only gemm,lora --quick     a part, few shapes and rounds

Writes bench/results/<cpu>.json (every median, spread and sample), .md (what was to be shown and whether it is, then all figures).
A section that is run again replaces its earlier figures of the same tier and number of threads; the others stay. Ends with
status 1 when an entry failed. To use some of the CPUs only, put taskset before the command. bench/README.md says what is needed.
"""
import argparse, datetime, json, os, pathlib, shutil, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
from suite import cases, generate, goals, java, machine, report, rounds, step  # noqa: E402


WHOLE = {"java": java, "step": step, "generate": generate}  # sections that measure programs as users run them


class Workers(dict):
    """Starts a side when it is first asked."""

    def __init__(self, args, environment):
        super().__init__()
        self.commands = {"native": lambda: [args.kernel_bench or build()], "torch": lambda: [args.python, ROOT / "bench/suite/torch_worker.py"]}
        self.environment = environment

    def __missing__(self, side):
        self[side] = rounds.Worker(side, self.commands[side](), self.environment)
        return self[side]


def build():
    """Builds kernel_bench from the sources of this checkout; returns its path."""
    folder = ROOT / "build/bench"
    generator = ["-G", "Ninja"] if shutil.which("ninja") and not (folder / "CMakeCache.txt").exists() else []
    for command in (["cmake", "-S", ROOT / "native", "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DLORA4J_BUILD_TESTS=OFF",
                     "-DLORA4J_BUILD_BENCHMARKS=ON", *generator], ["cmake", "--build", folder, "--target", "kernel_bench"]):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return folder / "bench/kernel_bench"


def show(case):
    """A line of progress: every entry as it stands in the table."""
    print(f"  {case['name']}: " + "; ".join(f"{label} {report.cell(case, label)}" for label in case["entries"]), flush=True)


def main():
    sections = [*cases.SECTIONS, *WHOLE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(sections), metavar="SECTIONS", help="of " + ", ".join(sections))
    parser.add_argument("--isa", choices=["avx2", "best"], default="best", help="cap every side to AVX2 (default: each side's best)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every side (default: the CPUs of this process)")
    parser.add_argument("--quick", action="store_true", help="few shapes and rounds: does everything work?")
    parser.add_argument("--precision", type=float, help="stop at the rounds of a case once its medians are known to this share (default 0.01, quick 1)")
    parser.add_argument("--rounds", type=int, help="at least so many per case (default 5, quick 2)")
    parser.add_argument("--out_folder", type=pathlib.Path, default=ROOT / "bench/results", help="where <cpu>.json and the rest go (default bench/results)")
    parser.add_argument("--out", type=pathlib.Path, help="their path without ending, instead of <cpu> in that folder")
    parser.add_argument("--kernel_bench", type=pathlib.Path, help="a built kernel_bench (default: build it)")
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch, peft and transformers (default: this one)")
    parser.add_argument("--llama_python", default=sys.executable, help="the Python that has llama-cpp-python, for section generate (default: this one)")
    parser.add_argument("--lora4j", type=pathlib.Path, default=ROOT / "lora4j", help="the command to measure in section step")
    parser.add_argument("--build", action="store_true", help="only build kernel_bench and print its path")
    args = parser.parse_args()
    if args.build:
        print(build())
        return
    chosen = args.only.split(",")
    unknown = [name for name in chosen if name not in sections]
    if unknown:
        parser.error(f"unknown section {', '.join(unknown)}; there are {', '.join(sections)}")

    here = machine.Machine(args.isa, args.threads)
    plan = rounds.Plan(threads=args.threads, rounds=args.rounds or (2 if args.quick else 5), seconds=0.03 if args.quick else 0.1,
                       precision=args.precision or (1 if args.quick else 0.01))
    workers = Workers(args, here.environment)
    kernels = {}
    if set(chosen) - set(WHOLE):
        kernels = {**workers["native"].ask("info"), **{f"torch {key}" if key != "torch" else key: value for key, value in workers["torch"].ask("info").items()}}
        here.peft = kernels["torch peft"] != "none"
    out = args.out or args.out_folder / here.slug()
    failed = 0
    for section in chosen:
        print(section, flush=True)
        results, about = [], {"commit": machine.commit(ROOT), "date": datetime.date.today().isoformat(), "quick": args.quick}
        if section in WHOLE:
            versions = {**kernels, **WHOLE[section].versions(args)}
            measured = WHOLE[section].run(here, plan, args, workers)
        else:
            versions = kernels
            measured = (rounds.measure(case, workers, plan) for case in cases.SECTIONS[section](here, args.quick))
        for case in measured:
            results.append(case)
            show(case)
            failed += sum("error" in entry for entry in results[-1]["entries"].values())
            report.save(out, here, args.isa, args.threads, section, {**about, "versions": versions, "cases": results})
    for worker in workers.values():
        worker.close()
    print(f"{out}.json, .md" + (f"; {failed} entries FAILED" if failed else ""))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
