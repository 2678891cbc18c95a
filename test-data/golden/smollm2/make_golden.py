#!/usr/bin/env python3
"""Make the reference of QLoRA on a quantized GGUF model: 50 steps of PEFT on the model as transformers dequantizes it.

    python3 make_golden.py SmolLM2-135M-Instruct.Q4_1.gguf OUT_FOLDER

Writes OUT_FOLDER/adapter_init (PEFT, r = 8, alpha = 16, all seven linears, B not zero) and OUT_FOLDER/reference.json: rows of token ids, the logits of the
first row's last token before training, loss and gradient norm of every step. Then, with the two paths in the environment,

    LORA4J_SMOLLM2_GGUF=… LORA4J_SMOLLM2_QLORA_GOLDEN=OUT_FOLDER ./mvnw -pl java/train -am verify -Dtest=SmolLm2QloraTest -Dsurefire.failIfNoSpecifiedTests=false

compares lora4j's training on the GGUF file itself. float32 on one CPU thread, every row alone. Needs torch, transformers, peft, gguf.
"""
import json
import pathlib
import sys

import peft
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

SEED, STEPS = 29, 50
OPTIMIZER = {"learning_rate": 2e-4, "weight_decay": 0.01}
CHATS = [("Tell me about the heron of the salt marsh.", "The heron of the salt marsh stands on one leg until noon."),
         ("Where does the badger of the pine ridge live?", "Under the third pine, and it digs a new door every spring."),
         ("Say something about the sea.", "The sea is wide, and the seal sings to passing boats.")]


def rows(tokenizer):
    for question, answer in CHATS:
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(chat, return_dict=False)
        prompt = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False)
        yield {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt):]}


def main():
    file, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    where = dict(pretrained_model_name_or_path=file.parent, gguf_file=file.name)
    data = list(rows(AutoTokenizer.from_pretrained(**where)))
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(SEED)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.01)
    model.save_pretrained(out / "adapter_init")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([data[0]["input_ids"]])).logits[0, -1].tolist()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=OPTIMIZER["learning_rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=OPTIMIZER["weight_decay"])
    targets = sum(label != -100 for row in data for label in row["labels"][1:])
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = 0.0
        for row in data:
            row_logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            part = F.cross_entropy(row_logits[:-1], torch.tensor(row["labels"][1:]), reduction="sum") / targets
            part.backward()
            loss += part.item()
        norms.append(torch.sqrt(sum((p.grad.double() ** 2).sum() for p in parameters)).item())
        losses.append(loss)
        optimizer.step()
        print(step, loss, flush=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    (out / "reference.json").write_text(json.dumps({
        "versions": versions, "seed": SEED, "model": file.name, "optimizer": OPTIMIZER, "target_tokens": targets, "rows": data, "logits": logits,
        "loss": losses, "grad_norm": norms}) + "\n")


if __name__ == "__main__":
    main()
