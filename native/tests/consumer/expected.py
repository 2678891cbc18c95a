#!/usr/bin/env python3
"""Prints the numbers that consumer.c compares with: a LoRA linear in fp64, forward and backward, with numpy 2.

    python3 expected.py
"""
import numpy as np

M, K, N, R, SCALING = 3, 5, 4, 2, 2.0


def pattern(rows, cols, a, b, m):
    """value(i, j) = ((a i + b j) mod m − (m − 1)/2) / 8: exact in fp32, written the same way in consumer.c"""
    i, j = np.indices((rows, cols))
    return ((a * i + b * j) % m - (m - 1) // 2) / 8


x, w = pattern(M, K, 7, 3, 11), pattern(N, K, 5, 2, 13)
a, b = pattern(R, K, 3, 4, 7), pattern(N, R, 2, 5, 9)
dy = pattern(M, N, 4, 7, 5)
s = SCALING * x @ a.T
y = x @ w.T + s @ b.T
ds = SCALING * dy @ b
results = {"y": y, "dx": dy @ w + ds @ a, "da": ds.T @ x, "db": dy.T @ s}
for name, values in results.items():
    print(f"static const double expected_{name}[] = {{" + ", ".join(repr(float(v)) for v in values.ravel()) + "};")
