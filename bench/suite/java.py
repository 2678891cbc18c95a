"""The kernels through the Java API beside themselves from C++, and OpenBLAS and oneDNN in both: what the bindings cost.

JMH measures in Java (bench/jmh, the peers by JavaCPP's presets in the same process), kernel_bench in C++; a round asks each once.
"""
import json, pathlib, subprocess, sys, tempfile

from . import rounds

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRODUCTS = [(64, 576, 576), (512, 576, 576), (512, 576, 1536), (512, 1536, 576), (512, 2048, 2048), (512, 4096, 4096)]
LAYERS = [(512, 576, 576), (512, 576, 1536), (512, 2048, 2048)]
# label in Java -> (benchmark, label from C++)
PEERS = {"Java": ("ours", "ours"), "OpenBLAS, Java": ("openblas", "OpenBLAS"), "oneDNN, Java": ("onednn", "oneDNN")}
LORA = {"frozen, Java": ("frozenForwardBackward", "frozen"), "r=16, Java": ("loraForwardBackward", "r=16")}


def build():
    """java and the jar of bench/jmh. Builds what is missing."""
    script = f'cd "{ROOT}" && . "{ROOT}/.mvn/toolchain.sh" && lora4j_find_jdk && ./mvnw -q -B -Dquick -pl bench/jmh -am package >&2 && echo "$JAVA_HOME"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench/jmh does not build:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return pathlib.Path(done.stdout.splitlines()[-1]) / "bin/java", ROOT / "bench/jmh/target/benchmarks.jar"


def versions(args):
    return {}


def jmh(command, benchmarks, shape, plan, environment):
    """A fork for each benchmark: {method: seconds of a call}."""
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name) / "jmh.json"
        time = f"{max(200, round(2000 * plan.seconds))}ms"
        words = [*command, f"({'|'.join(benchmarks)})$", "-p", f"shape={shape}", "-p", f"threads={plan.threads}", "-f", "1", "-wi", "2", "-i", "3", "-w", time, "-r", time,
                 "-foe", "true", "-rf", "json", "-rff", out]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment)
        if done.returncode or not out.exists():
            raise rounds.Failure(f"JMH ended with status {done.returncode}: {' '.join(done.stdout.split())[-1500:][:400]}")
        found = {}
        for line in json.loads(out.read_text()):
            assert line["primaryMetric"]["scoreUnit"] == "us/op"
            found[line["benchmark"].rsplit(".", 1)[1]] = 1e-6 * line["primaryMetric"]["score"]
        return found


def measure(name, command, environment, plan, workers, benchmarks, shape, native, **facts):
    """benchmarks: label -> (class.method, label of native); native: label -> request."""
    samples, about, error = {}, {}, None
    for round in range(plan.rounds):
        for label, request in native.items():
            reply = workers["native"].ask(f"{request}/threads={plan.threads}/time={plan.seconds}")
            samples.setdefault(label, []).append(reply.pop("seconds"))
            about[label] = {key: value for key, value in reply.items() if key in ("flops", "bytes") and value}
        try:
            found = jmh(command, [method for method, _ in benchmarks.values()], shape, plan, environment)
        except rounds.Failure as e:
            error = str(e)
            break
        for label, (method, same) in benchmarks.items():
            samples.setdefault(label, []).append(found[method.rsplit(".", 1)[1]])
            about[label] = about[same]
    workers["native"].ask("release")
    entries = {label: rounds.entry(samples[label], about[label]) for label in samples}
    if error:
        entries.update({label: {"error": error} for label in benchmarks})
    return {"name": name, "rounds": plan.rounds, **facts, "entries": entries}


def run(machine, plan, args, workers):
    java, jar = build()
    command = [java, "-jar", jar]
    environment = {**machine.environment, "OPENBLAS_NUM_THREADS": str(plan.threads), "OMP_NUM_THREADS": str(plan.threads)}
    limit = {"limit": "limit/what=fma"}
    for m, k, n in PRODUCTS[1:3] if args.quick else PRODUCTS:
        spec = f"gemm/op=nt/m={m}/k={k}/n={n}"
        yield measure(f"nt {m}x{k}x{n}", command, environment, plan, workers, {label: (f"ProductBenchmark.{method}", same) for label, (method, same) in PEERS.items()},
                      f"{m}x{k}x{n}", {"ours": f"{spec}/who=ours", "OpenBLAS": f"{spec}/who=openblas", "oneDNN": f"{spec}/who=onednn", **limit}, m=m, k=k, n=n)
    for m, k, n in LAYERS[:1] if args.quick else LAYERS:
        spec = f"lora/m={m}/k={k}/n={n}"
        yield measure(f"lora {m}x{k}x{n}", command, environment, plan, workers, {label: (f"LoraBenchmark.{method}", same) for label, (method, same) in LORA.items()},
                      f"{m}x{k}x{n}", {"frozen": f"{spec}/r=0", "r=16": f"{spec}/r=16", **limit}, m=m, k=k, n=n)
