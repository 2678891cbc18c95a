"""Generation at SmolLM2-135M's shape: a prompt of 512 tokens, then 64 more one by one; lora4j beside llama.cpp and transformers.

Random weights (step.make_model), the same on every side and of the same type: llama.cpp has them as GGUF, transformers computes in
fp32. One sequence, the most likely token each time. Every side is a process that keeps its model open; a round asks each once.
"""
import pathlib, subprocess, sys, tempfile, time

from . import cases, java, rounds, step

PROMPT, NEW = 512, 64
DTYPES = {"f32": ("float32", 4), "f16": ("float16", 2), "bf16": ("bfloat16", 2)}
HIDDEN, INNER, KV, LAYERS, VOCABULARY = 576, 1536, 192, 30, 49152
LINEAR = LAYERS * (2 * HIDDEN * (HIDDEN + KV) + 3 * HIDDEN * INNER)  # weights of all projections
HEAD = HIDDEN * VOCABULARY
# llama.cpp caps no instructions when it runs: it has to be built for the tier.
LLAMA = "pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36"
LLAMA_AVX2 = f'CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF" {LLAMA}'


def facts(part, itemsize):
    """What the limit counts: multiply-adds of the prompt, its attention and one token's head; or the weights read for every new token."""
    if part == "prefill":
        return {"tokens": PROMPT, "flops": 2 * (PROMPT * LINEAR + HEAD + LAYERS * PROMPT * PROMPT * HIDDEN)}
    return {"tokens": NEW, "bytes": NEW * itemsize * (LINEAR + HEAD)}


def worker():
    """The command of lora4j's side, with the launcher's options for the JVM."""
    command, jar = java.build()
    return [command, "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
            "-XX:+UseSerialGC", "-Xms8m", "-Xmn4m", "-XX:TieredStopAtLevel=1", "-cp", jar, "io.lora4j.bench.GenerateWorker"]


def versions(args):
    """llama.cpp's version and the instructions that it was built for; refused where --isa caps others to less."""
    code = "import llama_cpp; print(llama_cpp.__version__); print(llama_cpp.llama_print_system_info().decode())"
    done = subprocess.run([args.llama_python, "-c", code], capture_output=True, text=True)
    install = LLAMA_AVX2 if args.isa == "avx2" else LLAMA
    if done.returncode:
        sys.exit(f"{args.llama_python} has no llama_cpp (option --llama_python); install it there: {install}")
    version, system = done.stdout.splitlines()[-2:]
    if args.isa == "avx2" and "AVX512 = 1" in system:
        sys.exit(f"{args.llama_python}'s llama.cpp was built for more than AVX2 ({system}); install it again: {install}")
    return {**step.versions(args), "llama-cpp-python": version, "llama.cpp": system}


def limit(workers, part, plan):
    what = "limit/what=fma" if part == "prefill" else f"limit/what=read/mib={cases.memory_mib()}"
    return workers["native"].ask(f"{what}/threads={plan.threads}/time={plan.seconds}")


def measure(sides, dtype, workers, plan):
    """Two cases, prefill and decode, of one type of weights."""
    request = f"generate/weights={dtype}/prompt={PROMPT}/new={NEW}/threads={plan.threads}"
    samples = {part: {label: [] for label in [*sides, "limit"]} for part in ("prefill", "decode")}
    errors, limits, first = {}, {}, {}
    for round in range(-1, plan.rounds):  # the first round opens the models and does not count
        for label, worker in sides.items():
            if label in errors:
                continue
            try:
                reply = worker.ask(request)
            except rounds.Failure as e:
                errors[label] = str(e)
                continue
            first.setdefault(label, reply["ids"][0])
            if first[label] != first["lora4j"] and dtype == "f32":
                errors[label] = f"the first token is {first[label]}, lora4j's is {first['lora4j']}: not the same computation"
            if round >= 0:
                for part in samples:
                    samples[part][label].append(reply[part])
            time.sleep(rounds.PAUSE)
        for part in samples:
            limits[part] = limit(workers, part, plan)
            if round >= 0:
                samples[part]["limit"].append(limits[part].pop("seconds"))
    for worker in sides.values():
        worker.ask("release")
    for part in samples:
        entries = {}
        for label, times in samples[part].items():
            about = {key: limits[part][key] for key in ("flops", "bytes") if limits[part].get(key)} if label == "limit" else facts(part, DTYPES[dtype][1])
            entries[label] = {"error": errors[label]} if label in errors else rounds.entry(times, about)
        yield {"name": f"{part}, {dtype}", "part": part, "dtype": dtype, "rounds": plan.rounds, "entries": entries}


def run(machine, plan, args, workers):
    root = pathlib.Path(__file__).resolve().parents[2]
    command, script = worker(), root / "bench/suite/generate_worker.py"
    with tempfile.TemporaryDirectory() as name:
        models = pathlib.Path(name)
        start = lambda label, words: rounds.Worker(label, [*words, models], machine.environment)
        sides = {"lora4j": start("lora4j", command), "llama.cpp": start("llama.cpp", [args.llama_python, script, "llama.cpp"]),
                 "torch": start("torch", [args.python, script, "torch"])}
        try:
            for dtype, (long_name, _) in list(DTYPES.items())[:2] if args.quick else DTYPES.items():
                step.make_model(models / dtype, long_name, args.python)
                subprocess.run([args.python, root / "bench/suite/gguf_model.py", models / dtype, models / f"{dtype}.gguf", dtype], check=True)
                chosen = sides if dtype == "f32" else {label: side for label, side in sides.items() if label != "torch"}
                yield from measure(chosen, dtype, workers, plan)
        finally:
            for side in sides.values():
                side.close()
