#!/usr/bin/env python3
"""The quickstart's LoRA by transformers + PEFT: what a right implementation reaches on the instruction set.

    python3 reference_lora.py [--out reference_lora.json] [--adapter DIR] [settings]

Trains on instruct/train.jsonl (targets: the assistant's answer and its end-of-turn token), float32 on the CPU, and reports the loss on
instruct/valid.jsonl and the exact matches on instruct/test.jsonl before and after, by greedy decoding. Needs torch, transformers, peft.
"""
import argparse
import json
import math
import pathlib
import random
import time

import peft
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read_chats(name):
    return [json.loads(line)["messages"] for line in (HERE / "instruct" / f"{name}.jsonl").open()]


def row_of(tokenizer, chat):
    """Token ids and labels; a target is the answer, its end-of-turn token and the line break that the template prints after it."""
    prompt = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template(chat, return_dict=False)
    assert ids[:len(prompt)] == prompt
    return ids, [-100] * len(prompt) + ids[len(prompt):]


def padded(rows, pad):
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [pad] * (width - len(i)) for i, _ in rows])
    labels = torch.tensor([l + [-100] * (width - len(l)) for _, l in rows])
    mask = torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i, _ in rows])
    return ids, labels, mask


def loss_sum(model, rows, pad):
    ids, labels, mask = padded(rows, pad)
    logits = model(ids, attention_mask=mask, use_cache=False).logits
    targets = labels[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum"), (targets != -100).sum().item()


@torch.no_grad()
def mean_loss(model, rows, pad, batch=50):
    parts = [loss_sum(model, rows[i:i + batch], pad) for i in range(0, len(rows), batch)]
    return sum(p[0].item() for p in parts) / sum(p[1] for p in parts)


@torch.no_grad()
def answers(model, tokenizer, chats, batch=50):
    """Greedy answers up to the end-of-turn token; None where it does not come within 16 tokens."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    found = []
    for i in range(0, len(chats), batch):
        x = tokenizer.apply_chat_template([c[:1] for c in chats[i:i + batch]], add_generation_prompt=True, padding=True,
                                          return_tensors="pt", return_dict=True, tokenizer_kwargs={"padding_side": "left"})
        y = model.generate(**x, max_new_tokens=16, do_sample=False)[:, x["input_ids"].shape[1]:].tolist()
        found += [tokenizer.decode(row[:row.index(end)]) if end in row else None for row in y]
    return found


def matches(found, chats):
    return sum(a == c[1]["content"] for a, c in zip(found, chats))


def train(model, rows, args, pad):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=args.weight_decay)
    rng = random.Random(args.seed)
    order, curve = [], []
    model.train()
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, args.warmup_steps, args.max_steps)
    for step in range(args.max_steps):
        if len(order) < args.per_device_train_batch_size:
            order = rng.sample(range(len(rows)), len(rows))
        total, count = loss_sum(model, [rows[order.pop()] for _ in range(args.per_device_train_batch_size)], pad)
        loss = total / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        curve.append(loss.item())
        if (step + 1) % 20 == 0:
            print(f"step {step + 1} loss {sum(curve[-20:]) / 20:.4f}", flush=True)
    model.eval()
    return curve


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--adapter", type=pathlib.Path, help="folder to write the PEFT adapter to")
    parser.add_argument("--lora-r", type=int, default=8)
    parser.add_argument("--lora-alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--max-steps", type=int, default=150)
    parser.add_argument("--warmup-steps", type=int, default=10)
    parser.add_argument("--per-device-train-batch-size", type=int, default=16)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(HERE)
    model = AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32).eval()
    rows = {name: [row_of(tokenizer, c) for c in read_chats(name)] for name in ("train", "valid")}
    test = read_chats("test")
    pad = tokenizer.pad_token_id

    def measure():
        found = answers(model, tokenizer, test)
        return {"valid_loss": round(mean_loss(model, rows["valid"], pad), 4), "exact_match": matches(found, test),
                "of": len(test)}, found

    start = time.time()
    before, found_before = measure()
    print("before:", before)
    model = peft.get_peft_model(model, peft.LoraConfig(r=args.lora_r, lora_alpha=args.lora_alpha, target_modules=LINEARS, lora_dropout=0.0))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    started = time.time()
    curve = train(model, rows["train"], args, pad)
    training_seconds = time.time() - started
    after, found_after = measure()
    print("after:", after, f"training {training_seconds:.1f} s, all {time.time() - start:.1f} s")
    examples = [{"prompt": c[0]["content"], "answer": c[1]["content"], "before": b, "after": a}
                for c, b, a in zip(test, found_before, found_after)]
    for e in [e for e in examples if e["after"] != e["answer"]][:8]:
        print(e)
    if args.adapter:
        model.save_pretrained(args.adapter)
    if args.out:
        settings = {k: v for k, v in vars(args).items() if k not in ("out", "adapter")}
        record = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
                  "settings": settings, "target_modules": LINEARS, "trainable_parameters": trained,
                  "tokens_per_row": round(sum(len(i) for i, _ in rows["train"]) / len(rows["train"]), 1),
                  "longest_row": max(len(i) for n in rows for i, _ in rows[n]),
                  "training_seconds": round(training_seconds, 1), "all_seconds": round(time.time() - start, 1), "before": before,
                  "after": after, "perplexity": [round(math.exp(before["valid_loss"]), 3), round(math.exp(after["valid_loss"]), 3)],
                  "loss_every_10_steps": [round(sum(curve[i:i + 10]) / len(curve[i:i + 10]), 4) for i in range(0, len(curve), 10)],
                  "examples": examples[:20]}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
