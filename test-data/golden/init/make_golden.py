#!/usr/bin/env python3
"""Make the golden values of PiSSA and LoftQ on tiny-llama with PEFT.

    python3 make_golden.py

Writes reference.json and the folders beside this script; README.md describes them. The base is stored in bf16 and computed in float32, on one CPU
thread with deterministic algorithms, every row alone. PEFT's loftq_init insists on a GPU: its own source is run here with the device's name replaced.

Needs torch, transformers, peft, bitsandbytes, safetensors, scipy.
"""
import inspect
import json
import pathlib
import shutil

import bitsandbytes
import peft
import torch
import torch.nn.functional as F
import transformers
from peft.tuners.lora import layer as lora_layer
from peft.utils import loftq_utils
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE.parent.parent / "tiny-llama"
SEED, STEPS, BATCH, LOGITS = 41, 10, 4, 8
OPTIMIZER = {"learning_rate": 2e-3, "weight_decay": 0.01}
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SUBSET = dict(target_modules=["q_proj", "v_proj", "down_proj"], layers_to_transform=[0, 5])
CASES = {
    "pissa": dict(r=4, lora_alpha=8, init_lora_weights="pissa", **SUBSET),
    "pissa_rslora": dict(r=4, lora_alpha=3, use_rslora=True, init_lora_weights="pissa", **SUBSET),
    "pissa_patterns": dict(r=4, lora_alpha=8, rank_pattern={"v_proj": 2}, alpha_pattern={"down_proj": 12}, init_lora_weights="pissa", **SUBSET),
    # lora_alpha equals r: PEFT's LoftQ leaves the scaling out of account, and is right where it is 1.
    "loftq": dict(r=2, lora_alpha=2, init_lora_weights="loftq", loftq_config={"loftq_bits": 4, "loftq_iter": 1}, target_modules=ALL_LINEAR),
    "loftq_iter_3": dict(r=2, lora_alpha=2, init_lora_weights="loftq", loftq_config={"loftq_bits": 4, "loftq_iter": 3}, target_modules=ALL_LINEAR),
}


def loftq_on_the_cpu():
    source = inspect.getsource(loftq_utils.loftq_init)
    assert source.count('"cuda"') == 1
    scope = dict(vars(loftq_utils))
    exec(compile(source.replace('"cuda"', '"cpu"'), "loftq_init", "exec"), scope)  # PEFT's own source
    lora_layer.loftq_init = scope["loftq_init"]


def load():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").eval()


def save(model, folder, **how):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **how)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    config["base_model_name_or_path"] = "tiny-llama"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def step(model, rows, optimizer, parameters):
    targets = sum(label != -100 for row in rows for label in row["labels"][1:])
    optimizer.zero_grad()
    loss = 0.0
    for row in rows:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        part = F.cross_entropy(logits[:-1], torch.tensor(row["labels"][1:]), reduction="sum") / targets
        part.backward()
        loss += part.item()
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in parameters)).item()
    optimizer.step()
    return loss, norm


def last_logits(model, ids):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return [float(f"{x:.8g}") for x in logits[::LOGITS]]


def run(name, config, rows, prompt):
    torch.manual_seed(SEED)
    model = peft.get_peft_model(load(), peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **config)).eval()
    start = HERE / "start"  # what save_pretrained needs to convert with
    begun = {n.replace(".default", ""): p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    if name.startswith("pissa"):
        model.peft_config["default"].init_lora_weights = True  # as PEFT's examples do before they save the start
        model.save_pretrained(start)
        model.peft_config["default"].init_lora_weights = config["init_lora_weights"]
    result = {"config": config, "logits_at_start": last_logits(model, prompt)}
    # Signs are free: the product of the factors is not.
    result["norm_of_each_product"] = {
        n.removesuffix(".lora_A.weight"): torch.linalg.matrix_norm(begun[n.replace("lora_A", "lora_B")] @ a).item()
        for n, a in begun.items() if "lora_A" in n}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=OPTIMIZER["learning_rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=OPTIMIZER["weight_decay"])
    batches = [rows[:BATCH], rows[BATCH:]]
    curve = [step(model, batches[i % 2], optimizer, parameters) for i in range(STEPS)]
    result["loss"], result["grad_norm"] = [c[0] for c in curve], [c[1] for c in curve]
    result["logits_after"] = last_logits(model, prompt)
    if name == "pissa":
        save(model, HERE / "pissa_as_trained")
        (HERE / "pissa_as_trained" / "adapter_model.safetensors").unlink()  # its config is refused before
    if name in ("pissa", "pissa_patterns"):
        save(model, HERE / (name + "_converted"), path_initial_model_for_weight_conversion=str(start))
        plain = peft.PeftModel.from_pretrained(load(), HERE / (name + "_converted")).eval()
        result["logits_converted"] = last_logits(plain, prompt)
    shutil.rmtree(start, ignore_errors=True)
    return result


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    loftq_on_the_cpu()
    rows = [json.loads(line) for line in (HERE.parent / "tiny-llama" / "rows.jsonl").read_text().splitlines()]
    prompt = rows[2]["input_ids"][:12]
    result = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
                           "bitsandbytes": bitsandbytes.__version__},
              "seed": SEED, "optimizer": OPTIMIZER, "batch": BATCH, "prompt": prompt, "logits_of_base": last_logits(load(), prompt), "cases": {}}
    for name, config in CASES.items():
        result["cases"][name] = run(name, config, rows, prompt)
        print(name, result["cases"][name]["loss"])
    (HERE / "reference.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
