"""Writes milestones.json: at which steps transformers' Trainer logs, evaluates and saves, and the epoch that it logs there.

    python make_milestones.py > milestones.json      (written with transformers 5.24.0, torch 2.15.0)
"""

import json
import sys
import tempfile

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

CASES = [
    # rows, batch, accumulation, options
    (7, 2, 1, dict(max_steps=6, logging_steps=1)),
    (7, 2, 3, dict(num_train_epochs=2, logging_steps=1)),
    (25, 2, 5, dict(num_train_epochs=2.5, logging_steps=2, eval_strategy="epoch", save_strategy="epoch")),
    (25, 2, 5, dict(max_steps=8, logging_steps=3, eval_strategy="steps", eval_steps=4, save_steps=2)),
    (25, 2, 5, dict(max_steps=7, logging_steps=3, eval_strategy="steps", save_steps=5)),
    (40, 4, 3, dict(num_train_epochs=3, logging_steps=0.1, eval_strategy="steps", eval_steps=0.34, save_steps=0.5)),
    (9, 8, 4, dict(num_train_epochs=3, logging_steps=1, warmup_steps=0.4, save_strategy="no")),
    (9, 8, 4, dict(num_train_epochs=0.3, logging_steps=5, warmup_steps=3, eval_strategy="epoch", save_steps=0)),
    (31, 3, 2, dict(max_steps=100, logging_steps=10, warmup_steps=0.029, eval_strategy="steps", save_steps=0.07)),
]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x=None, labels=None):
        return {"loss": (self.weight * x - labels).pow(2).mean(), "logits": self.weight * x}


class Record(TrainerCallback):
    def __init__(self):
        self.logs, self.evals, self.saves = [], [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "learning_rate" in logs:
            self.logs.append([state.global_step, logs["epoch"]])

    def on_evaluate(self, args, state, control, **kwargs):
        self.evals.append(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        self.saves.append(state.global_step)


cases = []
for rows, batch, accumulation, options in CASES:
    data = [{"x": torch.tensor([1.0]), "labels": torch.tensor([0.5])} for _ in range(rows)]
    with tempfile.TemporaryDirectory() as output:
        args = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            **options,
        )
        record = Record()
        trainer = Trainer(Model(), args, train_dataset=data, eval_dataset=data, callbacks=[record])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        total = trainer.state.max_steps
        cases.append(
            {
                "rows": rows,
                "per_device_train_batch_size": batch,
                "gradient_accumulation_steps": accumulation,
                "options": options,
                "total_steps": total,
                "warmup_steps": args.get_warmup_steps(total),
                "logs": record.logs,
                "evals": record.evals,
                "saves": record.saves,
            }
        )
versions = {"transformers": transformers.__version__, "torch": torch.__version__}
json.dump({"versions": versions, "cases": cases}, sys.stdout, indent=1)
print()
