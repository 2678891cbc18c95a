"""What transformers + PEFT compute with a model, written beside it; see make.py."""
import json

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file


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


def record(name, folder, base, **lora):
    """Writes adapter/, expected.json and expected.safetensors of a model that computes in fp32."""
    base.train()
    model = get_peft_model(base, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **lora}))
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for n, p in trained.items():
            if "lora_B" in n:
                p.copy_(0.1 * torch.randn_like(p))
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    written = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    if isinstance(written["target_modules"], list):
        written["target_modules"].sort()  # PEFT writes a set, in any order
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    rows = [torch.randint(0, base.config.vocab_size, (n,)).tolist() for n in (7, 12, 1, 40, 5)]
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
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    assert size <= 300_000, (name, size)
    print(name, size)
