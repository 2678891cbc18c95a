#!/usr/bin/env python3
"""PyTorch's attention on the shapes of bench/native/gpu_attention.cpp: causal, grouped-query, BF16, by graph replay, the median of 20.

One JSON object for each shape, microseconds of a forward and of a forward with its backward.
"""

import json

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from cublas import microseconds

SHAPES = [(2, 32, 8, 2048, 128), (8, 9, 3, 1024, 64)]


def main():
    for batch, q_heads, kv_heads, length, depth in SHAPES:
        q, k, v = (
            torch.randn(batch, heads, length, depth, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for heads in (q_heads, kv_heads, kv_heads)
        )
        grad = torch.randn_like(q)

        def forward():
            with torch.no_grad():
                return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        def both():
            out = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return torch.autograd.grad(out, (q, k, v), grad)

        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            times = {"forward_us": microseconds(forward, 1), "both_us": microseconds(both, 1)}
        print(json.dumps({"batch": batch, "q_heads": q_heads, "kv_heads": kv_heads, "length": length, "depth": depth, **times}))


if __name__ == "__main__":
    main()
