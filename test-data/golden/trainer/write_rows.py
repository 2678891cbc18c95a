"""Rows for make_golden.py, seeded: chats and plain texts of 5 to 900 tokens in English, Chinese, Japanese, Korean, Arabic, with emoji and code.

Each row aims at a length and takes as many pieces as fit.
"""
import random

NAMES = ["Ada", "José", "Zoë", "Łukasz", "Ngọc", "Мария", "小明", "さくら", "Søren"]
THINGS = ["a red kite", "the old map", "two pears", "a lantern", "the blue drum", "a jar of honey"]
PLACES = ["in the garden", "under the bridge", "at the market", "by the river", "behind the barn"]
CJK = ["小明在花园里找到了一只风筝。", "今天下雨，所以大家都在家里看书。", "さくらは川のそばで古い地図を見つけました。", "明日は晴れるといいですね。",
       "민수는 시장에서 배를 두 개 샀다.", "「どこですか？」と彼女は聞いた。"]
EMOJI = ["🙂", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🇫🇷", "🏳️‍🌈", "✌🏿", "🐉", "❤️‍🔥", "1️⃣"]
ODD = ["e\u0301 is é in two characters", "مرحبا بالعالم", "a\tb\r\nc", "  two spaces  before", "“quotes” — and … dashes", "\\n is no line break",
       "x\u200by has a zero width space", "½ ∑ √ π", "{{ braces }} {% here %}", "100 % < 2 & 3 > 1"]
CODE = ['def area(w, h):\n    """Width times height."""\n    return w * h  # ok\n', "for (int i = 0; i < n; i++) {\n\tsum += a[i];\n}\n",
        'record Point(int x, int y) {\n    Point {\n        assert x >= 0;\n    }\n}\n', 'SELECT name, COUNT(*) FROM birds GROUP BY name;\n',
        '{"a": [1, 2.5e-3, null], "b": "\\u00e9"}\n', "#!/bin/sh\nset -eu\nfor f in *.txt; do wc -l \"$f\"; done\n"]
WORDS = [" yes", " no", " the end", " and", "!", " 7", "é"]


def sentence(rng):
    return rng.choice([
        f"{rng.choice(NAMES)} found {rng.choice(THINGS)} {rng.choice(PLACES)}.", f"Where is {rng.choice(THINGS)}?",
        f"{rng.choice(NAMES)} and {rng.choice(NAMES)} played {rng.choice(PLACES)} all day.",
        f"It was {rng.randint(2, 12)}:{rng.randint(10, 59)} when {rng.choice(NAMES)} came home."])


def piece(rng):
    kind = rng.random()
    if kind < 0.45:
        return sentence(rng) + " "
    if kind < 0.65:
        return rng.choice(CJK)
    if kind < 0.78:
        return "".join(rng.choices(EMOJI, k=rng.randint(1, 3))) + " "
    if kind < 0.88:
        return rng.choice(ODD) + "\n"
    return "\n```\n" + rng.choice(CODE) + "```\n"


def text(rng, fits):
    """A text of as many pieces as fit, then of words."""
    written, misses = "", 0
    while misses < 12:
        longer = written + (piece(rng) if misses < 6 else rng.choice(WORDS))
        if fits(longer):
            written, misses = longer, misses % 6
        else:
            misses += 1
    return written or "a"


def chat(rng, length, count):
    """Turns of user and assistant, sometimes after a system turn, that come to at most `length` tokens together."""
    messages = [{"role": "assistant", "content": "a"}]
    if length > 24:
        messages.insert(0, {"role": "user", "content": "a"})
    if length > 40 and rng.random() < 0.4:
        messages.insert(0, {"role": "system", "content": "Answer briefly."})
    for _ in range(min(rng.randrange(4), length // 40)):
        messages += [{"role": role, "content": "a"} for role in ("user", "assistant")]
    while count(messages) > length:
        messages.pop()
    for i, message in enumerate(messages):
        if message["role"] != "system":
            left = len(messages) - i
            share = 1 if left == 1 else rng.uniform(0.2, 1.8) / left
            limit = count(messages) + int(share * (length - count(messages)))
            message["content"] = text(rng, lambda content: count(messages[:i] + [{**message, "content": content}] + messages[i + 1:]) <= limit)
    return messages


def lengths(rng, shortest, longest, rows):
    """Two groups: two thirds of the rows are short, one third is long; both ends are among them."""
    short = [rng.randint(shortest, 90) for _ in range(rows * 2 // 3 - 1)]
    return [shortest] + short + [rng.randint(200, longest) for _ in range(rows - len(short) - 2)] + [longest]
