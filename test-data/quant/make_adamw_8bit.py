"""Steps of bitsandbytes' AdamW8bit, with its state after each.

Writes adamw_8bit.safetensors beside itself: `map` and `unsigned_map`, the 256 values of the codes of the two moments; `param.0`, the
parameters before the first step; and for step 1, 2, ... `grad.<step>`, `param.<step>`, `exp_avg.<step>` and `exp_avg_sq.<step>` (codes) and
`exp_avg_scale.<step>`, `exp_avg_sq_scale.<step>` (absmax of blocks of 256). The steps run on the CPU.

Run: python make_adamw_8bit.py (torch, bitsandbytes, safetensors)
     python make_adamw_8bit.py --map     prints both maps as src/quant/dynamic_map.h has them
"""
import inspect
import json
import pathlib
import sys

import bitsandbytes
import torch
from bitsandbytes.functional import create_dynamic_map
from bitsandbytes.optim import AdamW8bit
from safetensors.torch import save_file

SEED = 23
ELEMENTS = 4096 + 256 + 44  # the last block is not full
SETTINGS = dict(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
STEPS = 4


def print_maps():
    for name, signed in ("L4J_DYNAMIC_MAP", True), ("L4J_UNSIGNED_DYNAMIC_MAP", False):
        words = [f"0x{b & 0xFFFFFFFF:08X}" for b in create_dynamic_map(signed=signed).view(torch.int32).tolist()]
        lines = ["    " + ", ".join(words[i:i + 9]) for i in range(0, 256, 9)]
        print(f"#define {name} \\\n" + ", \\\n".join(lines))


def main():
    generator = torch.Generator().manual_seed(SEED)
    param = torch.nn.Parameter(0.02 * torch.randn(ELEMENTS, generator=generator))
    optimizer = AdamW8bit([param], **SETTINGS)
    tensors = {"map": create_dynamic_map(signed=True), "unsigned_map": create_dynamic_map(signed=False), "param.0": param.detach().clone()}
    for step in range(1, STEPS + 1):
        # Blocks of very different sizes, elements of many magnitudes, some zeros, a block of zeros alone.
        grad = torch.randn(ELEMENTS, generator=generator) * 10 ** (-3 * torch.rand(ELEMENTS, generator=generator))
        grad *= 10 ** -(torch.arange(ELEMENTS) // 256 % 5).float()
        grad[::17] = 0
        grad[512:768] = 0
        param.grad = grad.clone()
        optimizer.step()
        state = optimizer.state[param]
        tensors |= {f"grad.{step}": grad, f"param.{step}": param.detach().clone(), f"exp_avg.{step}": state["state1"].clone(),
                    f"exp_avg_sq.{step}": state["state2"].clone(), f"exp_avg_scale.{step}": state["absmax1"].clone(),
                    f"exp_avg_sq_scale.{step}": state["absmax2"].clone()}
    least = inspect.signature(AdamW8bit).parameters["min_8bit_size"].default
    metadata = {"bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__, "seed": str(SEED), "min_8bit_size": str(least),
                "settings": json.dumps(SETTINGS)}
    save_file(tensors, pathlib.Path(__file__).with_name("adamw_8bit.safetensors"), metadata=metadata)


if __name__ == "__main__":
    print_maps() if "--map" in sys.argv else main()
