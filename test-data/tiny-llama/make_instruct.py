#!/usr/bin/env python3
"""Make the instruction set: reading questions with exact answers, about the world of the stories.

    python3 make_instruct.py --out instruct [--seed 4] [--train 3000] [--valid 200] [--test 200]

Every row is a chat of two turns: a story of two sentences with a question, and the answer, which is a name, a place, a thing, a colour
or a feeling out of that story. A story (its people, thing and places) stands in one file only, so the questions of valid.jsonl and
test.jsonl are about stories that train.jsonl does not have. Needs only Python.
"""
import argparse
import json
import pathlib
import random

PEOPLE = ("Lily Ben Mia Tom Anna Sam Zoe Max Nora Leo Ella Finn Ruby Jack Ivy Theo Rosa Omar Maya Kofi Lena Hugo Aisha Noah Clara Milo "
          "Suki Pablo Greta Amir Tess Ravi June Otis Wren Yuki Nadia Felix Pia Bruno").split()
ANIMALS = "fox rabbit bear duck frog mouse turtle cat dog goat hen bee snail whale pony crab squirrel penguin lamb beaver fish deer".split()
THINGS = "kite ball hat scarf boat box cup book key drum bell lamp blanket ladder map clock stone feather spoon bucket".split()
COLOURS = "red blue green yellow white black".split()
PLACES = ["in the garden", "by the sea", "in the forest", "at the farm", "on the hill", "at school", "in the kitchen", "near the pond",
          "in the snow", "at the market", "by the river", "at the park"]
FEELINGS = "happy sad tired hungry scared proud".split()

# A story, and the questions that it answers. Capitals of an answer are made by `sentence`.
STORIES = [
    ("{n} found a {c} {t} {p}. Then {n} gave it to {m}.", [
        ("Who found the {t}?", "{n}"), ("Who has the {t} now?", "{m}"), ("Where did {n} find the {t}?", "{p}"),
        ("What did {n} find?", "a {c} {t}"), ("What colour is the {t}?", "{c}")]),
    ("{n} lost a {c} {t} {p}. The {a} found it and was {f}.", [
        ("Who lost the {t}?", "{n}"), ("Who found the {t}?", "the {a}"), ("Where was the {t}?", "{p}"),
        ("What did {n} lose?", "a {c} {t}"), ("What colour is the {t}?", "{c}"), ("How did the {a} feel?", "{f}")]),
    ("{n} was {f}. The {a} gave {n} a {c} {t} {p}.", [
        ("How did {n} feel?", "{f}"), ("Who was {f}?", "{n}"), ("Who gave {n} the {t}?", "the {a}"), ("Where was {n}?", "{p}"),
        ("What colour is the {t}?", "{c}")]),
    ("{n} met a {a} {p}. They played with a {c} {t}.", [
        ("Who met the {a}?", "{n}"), ("Where did {n} meet the {a}?", "{p}"), ("What did they play with?", "a {c} {t}"),
        ("What colour is the {t}?", "{c}")]),
    ("The {a} hid a {c} {t} {p}. {n} looked for it all day.", [
        ("Who hid the {t}?", "the {a}"), ("Who looked for the {t}?", "{n}"), ("Where is the {t}?", "{p}"),
        ("What did the {a} hide?", "a {c} {t}"), ("What colour is the {t}?", "{c}")]),
]


def sentence(text):
    return text[0].upper() + text[1:] + "."


def make_row(rng):
    """A chat and the key of its story."""
    n, m = rng.sample(PEOPLE, 2)
    words = {"n": n, "m": m, "a": rng.choice(ANIMALS), "f": rng.choice(FEELINGS), "p": rng.choice(PLACES), "c": rng.choice(COLOURS),
             "t": rng.choice(THINGS)}
    story, questions = rng.choice(STORIES)
    question, answer = rng.choice(questions)
    story = story.format(**words)
    chat = {"messages": [{"role": "user", "content": f"{story} {question.format(**words)}"},
                         {"role": "assistant", "content": sentence(answer.format(**words))}]}
    return chat, story


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--valid", type=int, default=200)
    parser.add_argument("--test", type=int, default=200)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    seen = set()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, count in (("test", args.test), ("valid", args.valid), ("train", args.train)):
        rows = []
        while len(rows) < count:
            chat, story = make_row(rng)
            if story not in seen:
                seen.add(story)
                rows.append(json.dumps(chat) + "\n")
        (args.out / f"{name}.jsonl").write_text("".join(rows))
        print(f"{name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
