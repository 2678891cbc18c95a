#!/usr/bin/env python3
"""Make the golden vectors of LoRA training on tiny-llama with transformers + PEFT.

    python3 make_golden.py

Writes rows.jsonl, adapter_init/, reference.safetensors, reference.json and adapters/ beside this script. The base is stored in bf16 and
computed in float32, on one CPU thread with deterministic algorithms, every row alone (no padding); README.md describes the files.

Needs torch, transformers, peft, safetensors.
"""
import json
import math
import pathlib
import shutil
import sys

import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
BASE = HERE.parent.parent / "tiny-llama"
SEED = 11
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH, STEPS, NEW_TOKENS = 4, 20, 24
OPTIMIZER = {"learning_rate": 2e-3, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "weight_decay": 0.01, "max_grad_norm": 0,
             "lr_scheduler_type": "constant"}
TEXT_LENGTHS = {0: 9, 2: 29, 5: 75, 7: 120}  # row: tokens with BOS and EOS
GREEDY_PROMPTS = [{"prompt": "One day, Mia and her father went to the market to buy a"},
                  {"messages": [{"role": "user", "content": "The cat hid a blue drum in the forest. Rosa looked for it all day. Where is the drum?"}]}]
ADAPTERS = {
    "default": dict(r=4, lora_alpha=8, target_modules=ALL_LINEAR),
    "rslora": dict(r=4, lora_alpha=8, target_modules=ALL_LINEAR, use_rslora=True),
    "rank_pattern": dict(r=4, lora_alpha=8, target_modules=ALL_LINEAR,
                         rank_pattern={"down_proj": 2, "layers.0.self_attn.q_proj": 6, r"layers\.[2-4]\.mlp\.up_proj": 8},
                         alpha_pattern={"gate_proj": 12, r"layers\.[2-4]\.mlp\.up_proj": 4}),
    "subset_qv": dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
    "target_regex": dict(r=2, lora_alpha=8, target_modules=r".*\.layers\.[1-6]\.(self_attn\.o_proj|mlp\.down_proj)"),
}


def load_base(dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=dtype, attn_implementation="eager").eval()


def add_adapter(model, seed, **settings):
    """PEFT's own initialisation, but with B drawn from N(0, 0.02²) so that every gradient is non-zero from the start."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.02)
    model.peft_config["default"].base_model_name_or_path = "tiny-llama"
    return model.eval()


def save_adapter(model, folder):
    """save_pretrained, with target_modules sorted (PEFT writes a set in an order that changes from run to run) and no model card."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def chat_row(tokenizer, messages):
    """Every assistant turn is a target: its content through the end-of-turn token, and the line break after it."""
    def ids_of(count, prompt):
        return tokenizer.apply_chat_template(messages[:count], add_generation_prompt=prompt, return_dict=False)
    ids = ids_of(len(messages), False)
    labels = [-100] * len(ids)
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = len(ids_of(i, True)), len(ids_of(i + 1, False))
            labels[start:end] = ids[start:end]
    return {"messages": messages, "input_ids": ids, "labels": labels}


def text_row(tokenizer, text, length):
    """The longest prefix of whole words that gives at most `length` tokens with BOS and EOS; every token but BOS is a target."""
    words = text.split(" ")
    while len(ids := tokenizer(" ".join(words))["input_ids"] + [tokenizer.eos_token_id]) > length:
        words.pop()
    return {"text": " ".join(words), "input_ids": ids, "labels": ids}


def make_rows(tokenizer):
    chats = [json.loads(line)["messages"] for line in (BASE / "instruct" / "train.jsonl").read_text().splitlines()[:5]]
    samples = [s["text"] for s in json.loads((BASE / "samples.json").read_text())["samples"]]
    chats = iter([chats[0], chats[1], chats[2] + chats[3], [{"role": "system", "content": "Answer the question."}] + chats[4]])
    return [text_row(tokenizer, samples[i], TEXT_LENGTHS[i]) if i in TEXT_LENGTHS else chat_row(tokenizer, next(chats)) for i in range(8)]


def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def step_loss(model, rows):
    """Mean cross-entropy over all target tokens of the rows."""
    losses, count = [], 0
    for row in rows:
        targets = torch.tensor(row["labels"][1:])
        losses.append(F.cross_entropy(logits_of(model, row["input_ids"])[:-1], targets, reduction="sum"))
        count += (targets != -100).sum().item()
    return torch.stack(losses).sum() / count, count


def adapter_parameters(model):
    """Name in the PEFT file → parameter."""
    return {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}


def train(model, rows):
    """Loss and gradient norm of every step, gradients of the first, norms of the tensors after the last."""
    parameters = adapter_parameters(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=OPTIMIZER["learning_rate"], betas=(OPTIMIZER["adam_beta1"], OPTIMIZER["adam_beta2"]),
                                  eps=OPTIMIZER["adam_epsilon"], weight_decay=OPTIMIZER["weight_decay"], foreach=False)
    losses, norms, gradients = [], [], None
    for step in range(STEPS):
        first = step * BATCH % len(rows)
        loss, _ = step_loss(model, rows[first:first + BATCH])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {n: p.grad.detach().clone() for n, p in parameters.items()}
        losses.append(loss.item())
        norms.append(math.sqrt(sum(p.grad.double().square().sum().item() for p in parameters.values())))
        optimizer.step()
    return losses, norms, gradients, {n: p.detach().double().norm().item() for n, p in parameters.items()}


@torch.no_grad()
def greedy(model, ids):
    """NEW_TOKENS greedy tokens, and the least distance between the best two logits on the way: how far from a tie every choice was."""
    ids, margin = list(ids), math.inf
    for _ in range(NEW_TOKENS):
        best = logits_of(model, ids)[-1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return {"tokens": ids[-NEW_TOKENS:], "least_margin": round(margin, 5)}


def relative(x, reference):
    return ((x.double() - reference.double()).norm() / reference.double().norm()).item()


def make_reference(tokenizer, rows):
    init = dict(r=8, lora_alpha=16, target_modules=ALL_LINEAR)
    model = add_adapter(load_base(), SEED, **init)
    save_adapter(model, HERE / "adapter_init")
    prompts = [tokenizer(p["prompt"])["input_ids"] if "prompt" in p else
               tokenizer.apply_chat_template(p["messages"], add_generation_prompt=True, return_dict=False) for p in GREEDY_PROMPTS]
    tensors, positions = {}, []
    with torch.no_grad():
        for i, row in enumerate(rows):
            last = len(row["input_ids"]) - 1
            positions.append([0, last // 2, last])
            tensors[f"logits_with_adapter.{i}"] = logits_of(model, row["input_ids"])[positions[i]].contiguous()
            with model.disable_adapter():
                tensors[f"logits_without_adapter.{i}"] = logits_of(model, row["input_ids"])[positions[i]].contiguous()
        with_adapter = [greedy(model, p) for p in prompts]
        with model.disable_adapter():
            without = [greedy(model, p) for p in prompts]
    losses, norms, gradients, final = train(model, rows)
    tensors |= {f"gradient.{n}": g for n, g in gradients.items()}
    save_file(tensors, HERE / "reference.safetensors", metadata={"format": "pt"})
    (HERE / "reference.safetensors").chmod(0o644)

    # The same in float64 says how far float32 itself is from the exact values.
    exact = add_adapter(load_base(torch.float64), SEED, **init).double()
    for source, copy in zip(add_adapter(load_base(), SEED, **init).parameters(), exact.parameters()):
        copy.data.copy_(source.data)
    losses64, norms64, gradients64, final64 = train(exact, rows)
    record = {
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__,
                     "peft": peft.__version__},
        "seed": SEED, "adapter": init, "optimizer": OPTIMIZER, "rows_per_step": BATCH,
        "target_tokens_per_step": [sum(l != -100 for r in rows[i:i + BATCH] for l in r["labels"][1:]) for i in (0, BATCH)],
        "loss": losses, "grad_norm": norms, "norm_of_each_tensor_after_training": final, "logit_positions": positions,
        "greedy": [{**p, "input_ids": ids, "with_adapter": w, "without_adapter": o}
                   for p, ids, w, o in zip(GREEDY_PROMPTS, prompts, with_adapter, without)],
        "float64": {"loss": losses64, "grad_norm": norms64, "norm_of_each_tensor_after_training": final64,
                    "largest_relative_difference": {
                        "loss": max(abs(a - b) / b for a, b in zip(losses, losses64)),
                        "grad_norm": max(abs(a - b) / b for a, b in zip(norms, norms64)),
                        "gradient_tensor": max(relative(gradients[n], gradients64[n]) for n in gradients),
                        "tensor_norm_after_training": max(abs(final[n] - final64[n]) / final64[n] for n in final)}}}
    (HERE / "reference.json").write_text(json.dumps(record, indent=1) + "\n")
    print("loss", losses[0], "→", losses[-1], record["float64"]["largest_relative_difference"])
    print("greedy margins", [(w["least_margin"], o["least_margin"]) for w, o in zip(with_adapter, without)])
    for g in record["greedy"]:
        print([tokenizer.decode(g[k]["tokens"]) for k in ("with_adapter", "without_adapter")])


@torch.no_grad()
def make_adapters(tokenizer):
    ids = tokenizer(GREEDY_PROMPTS[0]["prompt"])["input_ids"]
    tensors = {"input_ids": torch.tensor(ids), "base": logits_of(load_base(), ids)[-1].clone()}
    for seed, (name, settings) in enumerate(ADAPTERS.items(), SEED + 1):
        model = add_adapter(load_base(), seed, **settings)
        save_adapter(model, HERE / "adapters" / name)
        tensors[name] = logits_of(model, ids)[-1].clone()
        print(f"{name}: logits differ from the base's by {relative(tensors[name], tensors['base']):.3f}")
    save_file(tensors, HERE / "adapters" / "logits.safetensors", metadata={"format": "pt"})
    (HERE / "adapters" / "logits.safetensors").chmod(0o644)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    rows = make_rows(tokenizer)
    (HERE / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    print("row lengths", [len(r["input_ids"]) for r in rows])
    make_reference(tokenizer, rows)
    make_adapters(tokenizer)


if __name__ == "__main__":
    main()
