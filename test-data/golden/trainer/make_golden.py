#!/usr/bin/env python3
"""Make golden training runs of tiny-llama with transformers' Trainer + PEFT.

    python3 make_golden.py

Writes chats.jsonl, texts.jsonl and reference.json beside this script; README.md describes them. Accumulation, normalisation by target tokens,
clipping, the schedule and the short last step of an epoch are Trainer's own; ours are only the rows, their order and their labels.

Needs torch, transformers, accelerate, peft.
"""
import functools
import json
import math
import pathlib
import random
import re
import sys
import tempfile

import accelerate
import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import write_rows

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent.parent
sys.path.append(str(DATA / "train"))
import row_order  # noqa: E402

SEED = 31
ROWS, CONTEXT = 40, 1024  # tiny-llama's own context is 512
COMMON = {"num_train_epochs": 3, "weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-7}
RUNS = {
    "chats": {**COMMON, "seed": 42, "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_steps": 4, "max_grad_norm": 4.5,
              "per_device_train_batch_size": 3, "gradient_accumulation_steps": 3},
    "texts": {**COMMON, "seed": 7, "learning_rate": 5e-4, "lr_scheduler_type": "linear", "warmup_steps": 2, "max_grad_norm": 0.25,
              "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
}
# tiny-llama's template with the assistant's turns marked for transformers' own mask.
MARKED = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' + '\\n' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}"""


def longer_context(folder):
    """tiny-llama with room for 1024 tokens, as links in a folder; RoPE needs no other change."""
    for file in (DATA / "tiny-llama").iterdir():
        if file.is_file() and file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((DATA / "tiny-llama" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    return folder


def chat_rows(tokenizer):
    def ids(messages):
        return tokenizer.apply_chat_template(messages, return_dict=False)

    rng = random.Random(SEED)
    for length in write_rows.lengths(rng, 9, 900, ROWS):
        messages = write_rows.chat(rng, length, lambda m: len(ids(m)))
        marked = tokenizer.apply_chat_template(messages, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True)
        assert marked["input_ids"] == ids(messages)
        yield {"messages": messages}, marked["input_ids"], [i if m else -100 for i, m in zip(marked["input_ids"], marked["assistant_masks"])]


def text_rows(tokenizer):
    def ids(text):
        return tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]

    rng = random.Random(SEED + 1)
    for length in write_rows.lengths(rng, 5, 900, ROWS):
        text = write_rows.text(rng, lambda t: len(ids(t)) <= length)
        yield {"text": text}, ids(text), ids(text)


class RowOrder(torch.utils.data.Sampler):
    """The rows in the order of each epoch."""

    def __init__(self, rows, seed):
        self.rows, self.seed, self.epoch = rows, seed, 0

    def __len__(self):
        return self.rows

    def __iter__(self):
        self.epoch += 1
        return iter(row_order.order(self.rows, self.seed, self.epoch - 1))


class OrderedTrainer(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        return RowOrder(len(self.train_dataset), self.args.seed)


def collate(seen, rows):
    """Pads on the right, and notes which rows came."""
    seen.append([row["index"] for row in rows])
    width = max(len(row["input_ids"]) for row in rows)

    def padded(values, filler):
        return torch.tensor([v + [filler] * (width - len(v)) for v in values])
    return {"input_ids": padded([r["input_ids"] for r in rows], 2), "labels": padded([r["labels"] for r in rows], -100),
            "attention_mask": padded([[1] * len(r["input_ids"]) for r in rows], 0)}


def train(base, rows, settings, dtype):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(model, HERE.parent / "tiny-llama" / "adapter_init", is_trainable=True, autocast_adapter_dtype=False)
    for p in model.parameters():
        p.data = p.data.to(dtype)
    dataset = [{"index": i, "input_ids": ids, "labels": labels} for i, (_, ids, labels) in enumerate(rows)]
    seen = []
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(output, use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
                                      optim="adamw_torch", remove_unused_columns=False, dataloader_pin_memory=False, **settings)
        trainer = OrderedTrainer(model, arguments, functools.partial(collate, seen), dataset)
        trainer.train()
    batch = settings["per_device_train_batch_size"]
    expected = [row_order.order(ROWS, settings["seed"], epoch) for epoch in range(settings["num_train_epochs"])]
    assert seen == [order[i:i + batch] for order in expected for i in range(0, ROWS, batch)], "Trainer took other rows"
    log = [line for line in trainer.state.log_history if "grad_norm" in line]
    tensors = {n.replace(".default.", "."): p.detach().double() for n, p in model.named_parameters() if p.requires_grad}
    return {"loss": [line["loss"] for line in log], "grad_norm": [line["grad_norm"] for line in log],
            "learning_rate": [line["learning_rate"] for line in log],
            "norm_of_each_tensor_after_training": {n: t.norm().item() for n, t in tensors.items()},
            "projection_of_each_tensor_after_training": {n: projection(t) for n, t in tensors.items()}}


def projection(tensor):
    """Σ cos(i) tᵢ over the elements in order, i from 0: unlike a norm it sees sign and place of every element."""
    return torch.dot(torch.cos(torch.arange(tensor.numel(), dtype=torch.float64)), tensor.flatten()).item()


def difference(run, exact):
    worst = {key: max(abs(a - b) / abs(b) for a, b in zip(run[key], exact[key])) for key in ("loss", "grad_norm")}
    norms = exact["norm_of_each_tensor_after_training"]
    for key in ("norm", "projection"):
        key = f"{key}_of_each_tensor_after_training"
        worst[key] = max(abs(run[key][n] - exact[key][n]) / norms[n] for n in norms)
    return worst


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    record = {"versions": {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__,
                           "accelerate": accelerate.__version__, "peft": peft.__version__},
              "seed": SEED, "max_position_embeddings": CONTEXT, "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        base = longer_context(pathlib.Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(base)
        for name, settings in RUNS.items():
            rows = list((chat_rows if name == "chats" else text_rows)(tokenizer))
            (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row, _, _ in rows))
            run, exact = (train(base, rows, settings, dtype) for dtype in (torch.float32, torch.float64))
            clipped = sum(n > settings["max_grad_norm"] for n in run["grad_norm"])
            print(name, "lengths", sorted(len(ids) for _, ids, _ in rows), "clipped", clipped, "of", len(run["loss"]))
            print("  loss", run["loss"], "\n  norm", run["grad_norm"])
            run["float64"] = {k: exact[k] for k in ("loss", "grad_norm")} | {"largest_relative_difference": difference(run, exact)}
            print("  float64", run["float64"]["largest_relative_difference"])
            assert clipped > len(run["loss"]) / 2 and math.isfinite(sum(run["loss"]))
            record["runs"][name] = {"settings": settings, "input_ids": [ids for _, ids, _ in rows], "labels": [labels for *_, labels in rows], **run}
    # One line for each list of numbers.
    text = json.dumps(record, indent=1)
    (HERE / "reference.json").write_text(re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m[0].split()), text) + "\n")


if __name__ == "__main__":
    main()
