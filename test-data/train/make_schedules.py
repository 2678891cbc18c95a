"""Writes schedules.json: learning rates of transformers' schedules, step by step, as Schedule must give them.

    python3 make_schedules.py > schedules.json      (written with transformers 5.24.0, torch 2.15.0)

Each shape with every pair of warm-up and total steps: none, one, some, exactly all and more than all steps of warm-up.
"""

import json

import torch
import transformers

SHAPES = {"linear": 2e-4, "cosine": 3e-4, "constant_with_warmup": 2e-3, "constant": 1e-2}
TOTALS = [1, 2, 7, 37, 100]
WARMUPS = [0, 1, 5, 37, 150]


def rates(name, rate, warmup, total):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for _ in range(total):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


cases = [{"type": name, "learning_rate": rate, "warmup_steps": warmup, "total_steps": total, "rates": list(rates(name, rate, warmup, total))}
         for name, rate in SHAPES.items() for total in TOTALS for warmup in (WARMUPS if name != "constant" else [0])]
print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__})[:-1] + ', "cases": [')
print(",\n".join(json.dumps(case) for case in cases) + "\n]}")
