#!/usr/bin/env python3
"""A real model through the command line: SmolLM2-135M-Instruct learns to answer questions about short texts and keeps its manners.

    python3 bench/real_model.py MODEL_FOLDER [--lora4j ./lora4j] [--steps 40] [--out bench/results/smollm2.md]

Trains on test-data/tiny-llama/instruct/train.jsonl, compares loss and perplexity on valid.jsonl before and after, and asks ten general
questions that have nothing to do with the training data, greedy, with and without the adapter. Needs Python 3.9 and nothing else.
"""
import argparse, hashlib, json, pathlib, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUESTIONS = ["What is the capital of France?", "Name three primary colors.", "What do bees make?", "How many days are in a week?",
             "Why is the sky blue?", "Give me one tip for sleeping better.", "What is 2 plus 3?", "Translate 'good morning' to Spanish.",
             "What is photosynthesis?", "Write one sentence about the sea."]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--lora4j", type=pathlib.Path, default=ROOT / "lora4j")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/smollm2.md")
    args = parser.parse_args()
    data, weights = ROOT / "test-data/tiny-llama/instruct", args.model / "model.safetensors"

    def lora4j(*words):
        done = subprocess.run([str(args.lora4j), *map(str, words), "--json"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return json.loads(done.stdout)

    def sha256():
        return hashlib.sha256(weights.read_bytes()).hexdigest()

    def ask(question, *more):
        return " ".join(lora4j("generate", "--model", args.model, "--prompt", question, "--max_new_tokens", 40, *more)["text"].split()).replace("|", "\\|")

    with tempfile.TemporaryDirectory() as name:
        out, before = pathlib.Path(name) / "out", sha256()
        settings = ["--lora_r", 8, "--lora_alpha", 16, "--learning_rate", "2e-4", "--warmup_steps", 5, "--lora_dropout", 0, "--max_steps", args.steps,
                    "--per_device_train_batch_size", 16]
        trained = lora4j("train", "--model", args.model, "--data", data / "train.jsonl", "--output_dir", out, *settings)
        losses = lora4j("eval", "--model", args.model, "--adapter", out, "--data", data / "valid.jsonl")
        lines = [f"# {args.model.resolve().name}: {args.steps} steps through the command line", "",
                 "Made by `bench/real_model.py`: `lora4j train " + " ".join(map(str, settings)) + "` on 3 000 reading questions.", "",
                 "| held-out questions | base | with adapter |", "|---|---|---|",
                 *(f"| {key} | {losses['base'][key]:.4f} | {losses[key]:.4f} |" for key in ("loss", "perplexity", "mean_token_accuracy")), "",
                 f"Training loss {trained['metrics'][0]['loss']:.3f} → {trained['metrics'][-1]['loss']:.3f}. The base file's sha256 is "
                 + ("unchanged." if sha256() == before else "CHANGED."), "",
                 "General questions, greedy, at most 40 tokens:", "", "| question | base | with adapter |", "|---|---|---|"]
        for question in QUESTIONS:
            lines.append(f"| {question} | {ask(question)} | {ask(question, '--adapter', out)} |")
            print(lines[-1], flush=True)
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
