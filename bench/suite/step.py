"""One training step of SmolLM2-135M's shape: lora4j beside transformers + PEFT, in turns.

LoRA r=8 on all linears, AdamW, batch 4 × 256 tokens, fp32 arithmetic on both sides. The weights are random (time does not depend on
them). lora4j runs as its users run it, through the command line; a step's time is what its metrics say, PEFT's is measured around
forward + backward + optimizer. Peak memory is the process's maximum resident set.
"""
import json, os, pathlib, statistics, subprocess, tempfile

from . import rounds, step_profile

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 4  # per round; the first is not counted
MODEL = r"""
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                     num_key_value_heads=3, head_dim=64, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=1e5,
                     tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2)
LlamaForCausalLM(config).to(getattr(torch, sys.argv[2])).save_pretrained(sys.argv[1])
"""
PEER = r"""
import json, sys, time, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
folder, steps, checkpointing, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "true", int(sys.argv[4])
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


def make_model(folder, dtype, python):
    subprocess.run([python, "-c", MODEL, folder, dtype], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (pathlib.Path(folder) / name).write_bytes((ROOT / "test-data/tiny-llama" / name).read_bytes())


def run_process(command, environment):
    """Runs a command; returns its output and its maximum resident set in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0), err.seek(0)
        if status:
            raise RuntimeError(f"{' '.join(map(str, command))[:300]}: {err.read().decode()[-1000:]}")
        return out.read().decode(), usage.ru_maxrss * 1024


def train(folder, work, checkpointing, plan, args):
    """lora4j's command; writes to work/run."""
    return [args.lora4j, "train", "--model", folder, "--data", work / "data.jsonl", "--output_dir", work / "run", "--overwrite_output_dir",
            "--lora_r", "8", "--lora_dropout", "0", "--lora_alpha", "16", "--lora_target_modules", "all-linear", "--per_device_train_batch_size", "4",
            "--max_length", "256", "--max_steps", STEPS, "--logging_steps", "1", "--save_steps", "0", "--threads", plan.threads,
            "--gradient_checkpointing", checkpointing, "--json"]


def ours(folder, work, checkpointing, plan, args, environment):
    out = work / "run"
    _, peak = run_process(train(folder, work, checkpointing, plan, args), environment)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [4 * 256 / row["tokens_per_second"] for row in rows if "loss" in row], peak


def theirs(folder, work, checkpointing, plan, args, environment):
    text, peak = run_process([args.python, "-c", PEER, folder, STEPS, checkpointing, plan.threads], environment)
    return json.loads(text), peak


def run(machine, plan, args, workers):
    """Yields a case as rounds.measure makes it, for each way to store and train the model."""
    subprocess.run([args.lora4j, "--version"], check=True, stdout=subprocess.DEVNULL)  # builds what is missing
    ways = [("stored bf16", "bfloat16", "false"), ("stored fp32", "float32", "false"), ("stored bf16, checkpointing", "bfloat16", "true")]
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        words = " ".join(f"The cat number {i} sat on the mat and looked at the moon." for i in range(60))
        (work / "data.jsonl").write_text("".join(json.dumps({"text": f"Story {i}. {words}"}) + "\n" for i in range(64)))
        for way, dtype, checkpointing in ways[:1] if args.quick else ways:
            folder = work / dtype
            if not folder.exists():
                make_model(folder, dtype, args.python)
            times, peaks, errors = {"lora4j": [], "PEFT": []}, {"lora4j": [], "PEFT": []}, {}
            count = 1 if args.quick else args.rounds or 3
            for _ in range(count):
                for side, measure in (("lora4j", ours), ("PEFT", theirs)):
                    if side in errors:
                        continue
                    try:
                        seconds, peak = measure(folder, work, checkpointing, plan, args, machine.environment)
                    except (RuntimeError, OSError, ValueError) as e:
                        errors[side] = str(e)
                        continue
                    times[side] += seconds[1:]
                    peaks[side].append(peak)
            entries = {side: {"error": errors[side]} if side in errors else
                       rounds.entry(times[side], {"peak_rss_gib": round(statistics.median(peaks[side]) / 2**30, 3)}) for side in times}
            case = {"name": way, "rounds": count, "entries": entries}
            if checkpointing == "false" and "median" in entries["lora4j"]:
                try:
                    case["profile"] = step_profile.profile(train(folder, work, checkpointing, plan, args), machine.environment, work / "perf.data",
                                                           entries["lora4j"]["median"], workers, plan)
                except step_profile.Skipped as e:
                    print(f"  no profile: {e}", flush=True)
                    case["profile"] = {"skipped": str(e)}
            yield case


def versions(args):
    code = "import json, peft, torch, transformers; print(json.dumps({m.__name__: m.__version__ for m in (torch, transformers, peft)}))"
    done = subprocess.run([args.python, "-c", code], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
