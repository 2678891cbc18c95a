"""Writes sampling.json: the distributions that transformers' logits warpers leave, and critical values of chi-squared.

    python3 make_sampling.py > sampling.json      (written with transformers 5.24.0, torch 2.15.0)

Temperature, top_k and top_p in this order, as `generate` applies them, in float64. Where equal logits stand on both sides of the nucleus' edge,
transformers keeps which of them its sort puts first, and no order is promised; the file has the lowest ids, as many as it keeps.
"""

import itertools
import json
import random

import torch
import transformers
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

SEED, PROBABILITY, MOST_DEGREES = 17, 1e-6, 40
TEMPERATURES, TOP_KS, TOP_PS = [0.4, 1.0, 1.8], [0, 1, 5, 30], [1.0, 0.9, 0.5, 0.05]


def logits():
    rng = random.Random(SEED)
    return {"distinct": [rng.sample(range(-256, 257), 40)[i] / 64 for i in range(40)], "ties": [rng.randint(-4, 4) / 2 for _ in range(40)],
            "equal": [0.5] * 8, "peaked": [6.0] + [rng.randint(-64, 64) / 64 for _ in range(19)]}


def distribution(values, temperature, top_k, top_p):
    scores = torch.tensor([values], dtype=torch.float64)
    if temperature != 1:
        scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    candidates = scores.isfinite()[0].tolist()
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    p = scores.softmax(-1)[0].tolist()
    least = min(v for v, q in zip(values, p) if q > 0)
    edge = [i for i, v in enumerate(values) if v == least and candidates[i]]
    of_edge = sorted((p[i] for i in edge), reverse=True)
    for i, q in zip(edge, of_edge):
        p[i] = q
    return {i: q for i, q in enumerate(p) if q > 0}


def critical_value(degrees):
    """x with P(χ² > x) = PROBABILITY, by halving an interval."""
    low, high = 0.0, 1000.0
    for _ in range(200):
        middle = (low + high) / 2
        upper_tail = torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), torch.tensor(middle / 2, dtype=torch.float64))
        low, high = (middle, high) if upper_tail > PROBABILITY else (low, middle)
    return low


def main():
    sets = logits()
    cases = []
    for name, values in sets.items():
        combinations = itertools.product(TEMPERATURES, TOP_KS, TOP_PS)
        for temperature, top_k, top_p in combinations if name in ("distinct", "ties") else [(1.0, 0, 1.0), (1.0, 0, 0.5), (0.7, 3, 0.9), (1.8, 0, 0.97)]:
            kept = distribution(values, temperature, top_k, top_p)
            cases.append({"logits": name, "temperature": temperature, "top_k": top_k, "top_p": top_p, "ids": list(kept),
                          "probabilities": [float(f"{q:.12g}") for q in kept.values()]})
    record = {"transformers": transformers.__version__, "torch": torch.__version__, "seed": SEED, "tail_probability": PROBABILITY}
    print(json.dumps(record)[:-1] + ',\n"critical_values": ' + json.dumps([critical_value(d) for d in range(1, MOST_DEGREES + 1)]) + ",")
    print('"logits": ' + json.dumps(sets) + ',\n"cases": [')
    print(",\n".join(json.dumps(case) for case in cases) + "\n]}")


if __name__ == "__main__":
    main()
