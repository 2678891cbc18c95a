#!/usr/bin/env python3
"""Pretrain tiny-llama, a Llama of 3.5 million parameters, on very short stories.

    python3 pretrain.py stories.txt.xz --out OUT [--steps N] [--compile]

stories.txt.xz holds one story per line, line breaks written as the two characters \\n. OUT becomes a Hugging Face model folder as
`save_pretrained` writes it (weights in bf16), plus pretrain.json (settings, versions, loss curve, held-out loss) and samples.json
(20 seeded samples). Meant for one GPU with bf16, a few minutes; the bits differ from one GPU model to another.

Needs torch, transformers, tokenizers, numpy.
"""
import argparse
import hashlib
import json
import lzma
import math
import pathlib
import random
import sys
import time

import numpy
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 20
VOCAB = 2048
CONTEXT = 512
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
BOS, EOS, PAD, IM_START, IM_END = range(5)
CHAT_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.95, "max_new_tokens": 240}


def read_stories(path):
    """Training and held-out stories: every hundredth line is held out."""
    raw = path.read_bytes()
    lines = lzma.decompress(raw).decode().splitlines()
    stories = [line.replace("\\n", "\n") for line in lines]
    held_out = stories[99::100]
    return [s for i, s in enumerate(stories) if i % 100 != 99], held_out, hashlib.sha256(raw).hexdigest()


def train_tokenizer(stories):
    """Byte-level BPE: every text is encodable. Adds BOS in front by itself, as Llama 3's does."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(stories, trainer)
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{SPECIAL[BOS]} $A", pair=f"{SPECIAL[BOS]} $A {SPECIAL[BOS]} $B:1", special_tokens=[(SPECIAL[BOS], BOS)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[BOS], eos_token=SPECIAL[EOS], pad_token=SPECIAL[PAD],
        additional_special_tokens=[SPECIAL[IM_START], SPECIAL[IM_END]], model_max_length=CONTEXT, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model():
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=2,
        head_dim=32, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True, initializer_range=0.05, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, use_cache=True))


def rows_of(documents, order):
    """Packs documents (BOS … EOS) into rows of CONTEXT + 1 tokens; every row begins with a document, the last one is cut."""
    rows, row, length = [], [], 0
    for i in order:
        row.append(documents[i])
        length += len(documents[i])
        if length > CONTEXT:
            rows.append(numpy.concatenate(row)[:CONTEXT + 1])
            row, length = [], 0
    return numpy.stack(rows)


def batches(documents, batch, rng):
    """Endless batches; every epoch packs the documents in a new order."""
    documents = [numpy.array(d) for d in documents]
    while True:
        order = list(range(len(documents)))
        rng.shuffle(order)
        rows = torch.from_numpy(rows_of(documents, order))
        for i in range(0, len(rows) - batch + 1, batch):
            yield rows[i:i + batch]


def loss_of(model, rows):
    logits = model(rows[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def optimizer_of(model, lr):
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
              {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def train(model, documents, args, device):
    rng = random.Random(SEED)
    optimizer = optimizer_of(model, args.lr)
    step_loss = torch.compile(loss_of) if args.compile else loss_of
    curve, window, start = [], [], time.time()
    source = batches(documents, args.batch, rng)
    for step in range(1, args.steps + 1):
        warm = min(1.0, step / args.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * (0.02 + 0.98 * cosine)
        rows = next(source).to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = step_loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        window.append(loss.detach())
        if step % args.log == 0 or step == args.steps:
            mean = torch.stack(window).mean().item()
            window = []
            curve.append({"step": step, "loss": round(mean, 4)})
            print(f"step {step} loss {mean:.4f} {step * args.batch * CONTEXT / (time.time() - start):.0f} tokens/s {time.time() - start:.0f} s",
                  flush=True)
    return curve, time.time() - start


def set_turn_tokens(model):
    """Gives the turn tokens rows of their own.

    No story holds them, so training only pushes their rows to one common "never" direction. They get seeded draws with the mean and
    spread of the trained rows, so that an adapter over frozen, tied embeddings can tell them apart.
    """
    weight = model.model.embed_tokens.weight
    trained = weight.detach()[len(SPECIAL):].float().cpu()
    draw = torch.randn(2, weight.shape[1], generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        weight[IM_START:IM_END + 1] = (trained.mean(0) + draw * trained.std(0)).to(weight)


@torch.no_grad()
def held_out_loss(model, documents, device):
    """Mean loss over all tokens of the held-out documents, each alone in its row."""
    total, count = 0.0, 0
    for i in range(0, len(documents), 32):
        rows = [d[:CONTEXT + 1] for d in documents[i:i + 32]]
        width = max(map(len, rows))
        ids = torch.tensor([r + [PAD] * (width - len(r)) for r in rows], device=device)
        targets = torch.tensor([r[1:] + [-100] * (width - len(r)) for r in rows], device=device)
        logits = model(ids[:, :-1], use_cache=False).logits
        total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += (targets != -100).sum().item()
    return total / count, count


def write_samples(folder, count=20):
    """Samples from the saved files, in float32 on the CPU: the same tokens for whoever loads them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(SEED)
    prompt = torch.full((count, 1), BOS)
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), **SAMPLING)
    samples = [{"text": tokenizer.decode(row, skip_special_tokens=True), "finished": EOS in row.tolist()} for row in ids]
    record = {"seed": SEED, "sampling": SAMPLING, "torch": torch.__version__, "transformers": transformers.__version__, "samples": samples}
    (folder / "samples.json").write_text(json.dumps(record, indent=1) + "\n")
    return samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--batch", type=int, default=128, help=f"rows of {CONTEXT} tokens")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--log", type=int, default=250)
    parser.add_argument("--compile", action="store_true", help="torch.compile the step")
    args = parser.parse_args()

    random.seed(SEED)
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_stories, held_out_stories, digest = read_stories(args.stories)
    tokenizer = train_tokenizer(train_stories)
    train_documents, held_out = ([[BOS, *ids, EOS] for ids in tokenizer(s, add_special_tokens=False)["input_ids"]]
                                 for s in (train_stories, held_out_stories))
    tokens = sum(map(len, train_documents))
    model = make_model().to(device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, {tokens} training tokens, {len(held_out)} held-out stories, {device}", flush=True)

    curve, seconds = train(model, train_documents, args, device)
    set_turn_tokens(model)
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=[EOS, IM_END], pad_token_id=PAD)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)

    loss, count = held_out_loss(model.float(), held_out, device)
    record = {
        "parameters": parameters, "stories_sha256": digest, "training_stories": len(train_stories), "training_tokens": tokens,
        "tokens_seen": args.steps * args.batch * CONTEXT, "seed": SEED, "steps": args.steps, "batch_rows": args.batch, "row_tokens": CONTEXT,
        "learning_rate": args.lr, "warmup_steps": args.warmup, "compile": args.compile, "seconds": round(seconds),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__},
        "held_out": {"stories": len(held_out), "target_tokens": count, "loss": round(loss, 4), "perplexity": round(math.exp(loss), 3)},
        "loss_curve": curve}
    (args.out / "pretrain.json").write_text(json.dumps(record, indent=1) + "\n")
    print("held out:", record["held_out"])
    for sample in write_samples(args.out)[:5]:
        print("-", sample["text"])


if __name__ == "__main__":
    main()
