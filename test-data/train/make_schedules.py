"""Writes schedules.json: learning rates of transformers' schedules, step by step, as Schedule must give them.

    python make_schedules.py > schedules.json      (written with transformers 5.23.0, torch 2.15.0)
"""

import json
import sys

import torch
import transformers

CASES = [
    ("linear", 2e-4, 0, 10),
    ("linear", 1e-3, 3, 12),
    ("linear", 5e-5, 20, 12),
    ("linear", 1.0, 0, 1),
    ("cosine", 2e-4, 0, 10),
    ("cosine", 3e-4, 5, 37),
    ("cosine", 1e-2, 12, 12),
    ("constant", 2e-3, 0, 5),
    ("constant_with_warmup", 2e-3, 4, 9),
]

cases = []
for name, rate, warmup, total in CASES:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    cases.append({"type": name, "learning_rate": rate, "warmup_steps": warmup, "total_steps": total, "rates": rates})
json.dump({"transformers": transformers.__version__, "torch": torch.__version__, "cases": cases}, sys.stdout, indent=1)
print()
