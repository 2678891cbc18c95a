"""Writes packing.json: rows of token ids, and the sequences that TRL's packing strategies make of them.

    python make_packing.py > packing.json      (written with trl 1.16.0, datasets 5.2.0; seed 6)
"""

import json
import random
import sys

import trl
from datasets import Dataset
from trl import pack_dataset

LENGTH = 16
random.seed(6)
rows, labels, token = [], [], 0
for _ in range(60):
    n = random.choice([1, 2, 3, 5, 8, 13, 16, 17, 31, 32, 40])
    rows.append(list(range(token, token + n)))
    given = random.randrange(n)
    labels.append([-100] * given + rows[-1][given:])
    token += n
sequences = {}
for strategy in ("bfd", "bfd_split", "wrapped"):
    packed = pack_dataset(Dataset.from_dict({"input_ids": rows, "labels": labels}), LENGTH, strategy)
    sequences[strategy] = {"input_ids": packed["input_ids"][:], "labels": packed["labels"][:]}
    if strategy != "wrapped":
        sequences[strategy]["seq_lengths"] = packed["seq_lengths"][:]
json.dump(
    {"trl": trl.__version__, "max_length": LENGTH, "input_ids": rows, "labels": labels, "packed": sequences},
    sys.stdout,
)
print()
