#!/usr/bin/env python3
"""Trains test-data/tiny-llama on weights that bitsandbytes quantized: python make.py

The linear layers of the blocks are quantized by bitsandbytes on a CPU, in each of four ways, and decoded by the code book of the
result: w = map[q] * absmax, and absmax = nested map[q8] * nested scale + offset where it is quantized too, every step rounded to
fp32. PEFT trains adapter/ (B not zero) on them: 20 steps of AdamW, lr 2e-3, weight decay 0.01, all rows in every step, loss = mean
over target tokens. expected.json has the rows and labels, and of each way the losses and gradient norms.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, bitsandbytes 0.50.2.
"""
import json
import sys
from pathlib import Path

import torch
from bitsandbytes.functional import quantize_4bit
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
TINY = HERE.parents[9] / "test-data/tiny-llama"
sys.path.insert(0, str(HERE.parent / "families"))
from reference import step  # noqa: E402


def decoded(w, kind, double):
    packed, state = quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=double)
    absmax = state.absmax
    if double:
        nested = state.state2
        absmax = nested.code[absmax.long()] * nested.absmax.repeat_interleave(nested.blocksize)[:absmax.numel()] + state.offset
    packed = packed.flatten()
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten().long()[:w.numel()]
    return (state.code[codes] * absmax.repeat_interleave(64)[:w.numel()]).reshape(w.shape)


def base(kind=None, double=False):
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if kind and "proj" in name:
                p.copy_(decoded(p, kind, double))
    return model


torch.manual_seed(5)
torch.set_num_threads(1)
adapter = get_peft_model(base(), LoraConfig(r=1, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
with torch.no_grad():
    for n, p in adapter.named_parameters():
        if "lora_B" in n:
            p.copy_(0.05 * torch.randn_like(p))
adapter.peft_config["default"].base_model_name_or_path = "tiny-llama"
adapter.save_pretrained(HERE / "adapter")
(HERE / "adapter/README.md").unlink(missing_ok=True)
written = json.loads((HERE / "adapter/adapter_config.json").read_text())
written["target_modules"].sort()
(HERE / "adapter/adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
rows = [torch.randint(3, 2048, (n,)).tolist() for n in (9, 16, 21)]
labels = [[-100 if (5 * i + j) % 4 == 0 else t for j, t in enumerate(row)] for i, row in enumerate(rows)]
runs = {}
for kind, double in (("nf4", False), ("nf4", True), ("fp4", False), ("fp4", True)):
    model = PeftModel.from_pretrained(base(kind, double), HERE / "adapter", is_trainable=True).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.01)
    losses, norms = [], []
    for i in range(20):
        optimizer.zero_grad()
        losses.append(step(model, rows, labels))
        norms.append(torch.sqrt(sum((p.grad.double() ** 2).sum() for p in trained)).item())
        optimizer.step()
    runs[kind + ("_double" if double else "")] = dict(losses=losses, norms=norms)
(HERE / "expected.json").write_text(json.dumps(dict(rows=rows, labels=labels, runs=runs)) + "\n")
