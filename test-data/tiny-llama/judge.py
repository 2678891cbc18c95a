#!/usr/bin/env python3
"""Judge tiny-llama's samples by another model's perplexity.

    python3 judge.py stories.txt.xz JUDGE [--samples samples.json] [--out judge.json]

JUDGE is a Hugging Face folder of SmolLM2-135M-Instruct, which wrote the stories. Every sample is paired with one held-out story, cut to
the sample's number of tokens, so that both lists have equal lengths; the perplexity is over all tokens of a list. Float32 on the CPU.

Needs torch, transformers.
"""
import argparse
import json
import math
import pathlib
import random

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain import SEED, read_stories


@torch.no_grad()
def nll(model, start, ids):
    """Sum of the negative log-likelihoods of ids after the token that separates documents."""
    logits = model(torch.tensor([[start, *ids[:-1]]])).logits[0]
    return F.cross_entropy(logits, torch.tensor(ids), reduction="sum").item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", type=pathlib.Path)
    parser.add_argument("judge", type=pathlib.Path)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--samples", type=pathlib.Path, default=here / "samples.json")
    parser.add_argument("--out", type=pathlib.Path, default=here / "judge.json")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.judge)
    model = AutoModelForCausalLM.from_pretrained(args.judge, dtype=torch.float32).eval()
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    samples = [s["text"] for s in json.loads(args.samples.read_text())["samples"]]
    _, held_out, _ = read_stories(args.stories)
    random.Random(SEED).shuffle(held_out)

    rows = []
    for text in samples:
        sample = tokenizer(text, add_special_tokens=False)["input_ids"]
        story = next((i, ids) for i, s in enumerate(held_out)
                     if len(ids := tokenizer(s, add_special_tokens=False)["input_ids"]) >= len(sample))
        held_out.pop(story[0])
        rows.append({"tokens": len(sample), "sample_nll": nll(model, start, sample), "story_nll": nll(model, start, story[1][:len(sample)])})
    tokens = sum(r["tokens"] for r in rows)
    of_samples = math.exp(sum(r["sample_nll"] for r in rows) / tokens)
    of_stories = math.exp(sum(r["story_nll"] for r in rows) / tokens)
    record = {"samples": len(rows), "tokens": tokens, "perplexity_of_samples": round(of_samples, 3),
              "perplexity_of_held_out_stories": round(of_stories, 3), "ratio": round(of_samples / of_stories, 3)}
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(record)


if __name__ == "__main__":
    main()
