#!/usr/bin/env python3
"""A real model through the command line: SmolLM2-135M-Instruct learns made-up facts about animals and keeps what it knew.

    python3 bench/real_model.py MODEL_FOLDER [--lora4j ./lora4j] [--steps 40] [--out bench/results/smollm2.md]

Trains on 200 chats about animals in places (made here, seed 7), compares loss and perplexity on 40 others before and after, and asks ten
general questions that have nothing to do with them, greedy, with and without the adapter. Needs Python 3.9 and nothing else.
"""
import argparse, hashlib, itertools, json, pathlib, random, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUESTIONS = ["What is the capital of France?", "Name three primary colors.", "What do bees make?", "How many days are in a week?",
             "Why is the sky blue?", "Give me one tip for sleeping better.", "What is 2 plus 3?", "Translate 'good morning' to Spanish.",
             "What is photosynthesis?", "Write one sentence about the sea."]
ANIMALS = {"heron": "stands on one leg until noon", "otter": "calls twice before dawn", "lynx": "waits without moving, then strikes",
           "puffin": "carries stones to its nest", "tapir": "sleeps under wet leaves", "badger": "digs a new door every spring",
           "owl": "turns its head towards the moon", "hare": "runs in circles when it rains", "seal": "sings to passing boats",
           "fox": "hides bread behind the mill", "crane": "dances at the first frost", "toad": "counts the stars from the well"}
PLACES = ["the salt marsh", "the cliff path", "a quiet harbour", "the pine ridge", "the old orchard", "the northern bay", "a stone bridge",
          "the long valley", "the willow bank", "the sand hills", "a frozen lake", "the upper meadow", "the river mouth", "a dry canyon",
          "the birch wood", "the windy moor", "a narrow fjord", "the chalk down", "the fern gully", "the reed bed"]


def chats():
    """200 chats to learn from and 40 others of the same kind."""
    pairs = list(itertools.product(ANIMALS, PLACES))
    random.Random(7).shuffle(pairs)
    rows = [json.dumps({"messages": [{"role": "user", "content": f"Tell me about the {animal} of {place}."},
                                     {"role": "assistant", "content": f"The {animal} of {place} {ANIMALS[animal]}."}]}) + "\n"
            for animal, place in pairs]
    return rows[:200], rows[200:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--lora4j", type=pathlib.Path, default=ROOT / "lora4j")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/smollm2.md")
    args = parser.parse_args()
    weights = args.model / "model.safetensors"

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
        data, out, before = pathlib.Path(name), pathlib.Path(name) / "out", sha256()
        for file, rows in zip(("train.jsonl", "valid.jsonl"), chats()):
            (data / file).write_text("".join(rows))
        settings = ["--lora_r", 8, "--lora_alpha", 16, "--learning_rate", "2e-4", "--warmup_steps", 5, "--lora_dropout", 0, "--max_steps", args.steps,
                    "--per_device_train_batch_size", 8]
        trained = lora4j("train", "--model", args.model, "--data", data / "train.jsonl", "--output_dir", out, *settings)
        losses = lora4j("eval", "--model", args.model, "--adapter", out, "--data", data / "valid.jsonl")
        lines = [f"# {args.model.resolve().name}: {args.steps} steps through the command line", "",
                 "Made by `bench/real_model.py`: `lora4j train " + " ".join(map(str, settings)) + "` on 200 chats.", "",
                 "| held-out chats | base | with adapter |", "|---|---|---|",
                 *(f"| {key} | {losses['base'][key]:.4f} | {losses[key]:.4f} |" for key in ("loss", "perplexity", "mean_token_accuracy")), "",
                 f"Training loss {trained['metrics'][0]['loss']:.3f} → {trained['metrics'][-1]['loss']:.3f}. The base file's sha256 is "
                 + ("unchanged." if sha256() == before else "CHANGED."), "",
                 "General questions, greedy, at most 40 tokens:", "", "| question | base | with adapter |", "|---|---|---|"]
        for question in QUESTIONS:
            lines.append(f"| {question} | {ask(question)} | {ask(question, '--adapter', out)} |")
            print(lines[-1], flush=True)
        # What others have written below stays.
        below = args.out.read_text().partition("\n# ")[2] if args.out.exists() else ""
        args.out.write_text("\n".join(lines) + "\n" + (f"\n# {below}" if below else ""))


if __name__ == "__main__":
    main()
