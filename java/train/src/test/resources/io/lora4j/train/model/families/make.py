#!/usr/bin/env python3
"""Writes the random models beside this file and what transformers + PEFT compute with them: python make.py

One folder for each family: a Hugging Face model, adapter/ (PEFT, B not zero), expected.json (token rows and labels; losses and
gradient norms of five AdamW steps, loss = mean over target tokens, lr 5e-3, weight decay 0.01), expected.safetensors (logits of
each row, gradients of the first step, the adapter after the last). Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2.
"""
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

HERE = Path(__file__).resolve().parent
SIZES = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=1, eos_token_id=2)


def randomize(model):
    """Weights large enough that every part of the model matters."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif "bias" in name:
                p.copy_(0.3 * torch.randn_like(p))
            else:
                p.mul_(4)


def step(model, rows, labels, out=None):
    """Adds the gradient of the mean loss, row by row without padding; returns the loss."""
    count = sum(t != -100 for row in labels for t in row[1:])
    total = 0.0
    for row, label in zip(rows, labels):
        logits = model(input_ids=torch.tensor([row])).logits[0]
        if out is not None:
            out[f"logits.{len(row)}"] = logits.detach().clone()
        if len(row) > 1:
            loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(label[1:]), reduction="sum") / count
            loss.backward()
            total += loss.item()
    return total


def make(name, config, cls, **lora):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    base = cls(config).float()
    randomize(base)
    folder = HERE / name
    base.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = get_peft_model(base, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **lora}))
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for n, p in trained.items():
            if "lora_B" in n:
                p.copy_(0.1 * torch.randn_like(p))
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    rows = [torch.randint(0, config.vocab_size, (n,)).tolist() for n in (7, 12, 1, 20, 5)]
    labels = [[-100 if (7 * i + j) % 3 == 0 else t for j, t in enumerate(row)] for i, row in enumerate(rows)]
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3, weight_decay=0.01)
    tensors, losses, norms = {}, [], []
    for i in range(5):
        optimizer.zero_grad()
        losses.append(step(model, rows, labels, tensors if i == 0 else None))
        norms.append(torch.sqrt(sum((p.grad.double() ** 2).sum() for p in trained.values())).item())
        if i == 0:
            tensors.update({f"grad.{n}": p.grad.clone() for n, p in trained.items()})
        optimizer.step()
    tensors.update({f"final.{n}": p.detach().clone() for n, p in trained.items()})
    save_file(tensors, folder / "expected.safetensors")
    numbers = dict(rows=rows, labels=labels, losses=losses, norms=norms)
    (folder / "expected.json").write_text(json.dumps(numbers) + "\n")


LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
make("llama", LlamaConfig(**SIZES, tie_word_embeddings=True), LlamaForCausalLM)
make("llama3", LlamaConfig(**SIZES, tie_word_embeddings=False, head_dim=16, rope_parameters=LLAMA3), LlamaForCausalLM,
     use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"layers.1.self_attn.q_proj": 6},
     alpha_pattern={"v_proj": 3})
make("mistral", MistralConfig(**SIZES, sliding_window=64), MistralForCausalLM, target_modules=["o_proj", "up_proj"])
make("qwen2", Qwen2Config(**SIZES, tie_word_embeddings=True), Qwen2ForCausalLM)
make("qwen3", Qwen3Config(**SIZES, tie_word_embeddings=False, head_dim=12), Qwen3ForCausalLM, target_modules=r".*\.1\..*_proj")
