#!/usr/bin/env python3
"""One training step of SmolLM2-135M's shape: lora4j beside transformers + PEFT, in turns, in one run.

    python3 bench/step/step_bench.py [--isa avx2] [--dtype bfloat16] [--rounds 3] [--steps 4] [--checkpointing]

LoRA r=8 on all linears, AdamW, batch 4 × 256 tokens, fp32 arithmetic on both sides. The weights are random (time does not depend on
them). lora4j runs as its users run it, through the command line; a step's time is what its metrics say, PEFT's is measured around
forward + backward + optimizer. Peak memory is the process's maximum resident set. Prints medians and ratios, writes JSON.
Needs torch 2.15, transformers 5.23, peft 0.21.
"""
import argparse, json, os, pathlib, platform, shutil, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEER = r"""
import json, sys, time, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
folder, steps, checkpointing, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True", int(sys.argv[4])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
if checkpointing:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model.train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
ids = torch.randint(0, 2000, (4, 256))
times = []
for _ in range(steps):
    begin = time.perf_counter()
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.perf_counter() - begin)
print(json.dumps(times))
"""


def make_model(folder, dtype):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                         num_key_value_heads=3, head_dim=64, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=1e5,
                         tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "test-data/tiny-llama" / name, folder)


def run(command, environment):
    """Runs a command; returns its output and its maximum resident set in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0), err.seek(0)
        if status:
            sys.exit(f"{' '.join(map(str, command))}\n{err.read().decode()[-4000:]}")
        return out.read().decode(), usage.ru_maxrss * 1024


def ours(folder, work, args, environment):
    out = work / "run"
    command = [args.lora4j, "train", "--model", folder, "--data", work / "data.jsonl", "--output_dir", out, "--overwrite_output_dir",
               "--lora_r", "8", "--lora_alpha", "16", "--lora_target_modules", "all-linear", "--per_device_train_batch_size", "4",
               "--max_length", "256", "--max_steps", str(args.steps), "--logging_steps", "1", "--save_steps", "0", "--threads", str(args.threads),
               "--gradient_checkpointing", str(args.checkpointing).lower(), "--json"]
    _, peak = run(command, environment)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [4 * 256 / row["tokens_per_second"] for row in rows if "loss" in row], peak


def theirs(folder, args, environment):
    text, peak = run([sys.executable, "-c", PEER, folder, str(args.steps), str(args.checkpointing), str(args.threads)], environment)
    return json.loads(text), peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", choices=["avx2", "avx512"], help="cap both sides to this tier")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16", help="of the stored weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="per round; the first of a round is not counted")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--lora4j", type=pathlib.Path, default=ROOT / "lora4j", help="the command to measure")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the results")
    args = parser.parse_args()
    environment = {}
    if args.isa == "avx2":
        environment = {"LORA4J_MAX_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    elif args.isa:
        environment = {"LORA4J_MAX_ISA": args.isa}
    subprocess.run([args.lora4j, "--version"], check=True, stdout=subprocess.DEVNULL)  # builds what is missing
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        folder = work / "model"
        make_model(folder, args.dtype)
        words = " ".join(f"The cat number {i} sat on the mat and looked at the moon." for i in range(60))
        (work / "data.jsonl").write_text("".join(json.dumps({"text": f"Story {i}. {words}"}) + "\n" for i in range(64)))
        times, peaks = {"lora4j": [], "peft": []}, {"lora4j": [], "peft": []}
        for _ in range(args.rounds):
            for side, measure in (("lora4j", lambda: ours(folder, work, args, environment)), ("peft", lambda: theirs(folder, args, environment))):
                seconds, peak = measure()
                times[side] += seconds[1:]
                peaks[side].append(peak)
    result = {"shape": "SmolLM2-135M, r=8 all linears, 4 x 256 tokens, fp32", "stored": args.dtype, "isa": args.isa or "best", "threads": args.threads,
              "checkpointing": args.checkpointing, "machine": platform.processor() or platform.machine()}
    for side in times:
        result[side] = {"step_seconds": statistics.median(times[side]), "step_seconds_all": times[side], "peak_rss_gib": statistics.median(peaks[side]) / 2**30}
    result["time_ratio"] = result["lora4j"]["step_seconds"] / result["peft"]["step_seconds"]
    result["rss_ratio"] = result["lora4j"]["peak_rss_gib"] / result["peft"]["peak_rss_gib"]
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
