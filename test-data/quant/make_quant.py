"""Quantized weights of every format that lora4j reads, with the values that they stand for.

Writes quant.safetensors beside itself: per case the parts of the weight under lora4j.h's names of roles, `dequantized` (fp32) and, where
a quantizer made the parts, `w`, what it was given. Cases are named <scheme>.<case>.<part>.

Sources: the gguf package for GGUF's blocks (quantizers of the simple types, dequantization of all), bitsandbytes for NF4, FP4 and
LLM.int8; numpy for the rest, from the formats' definitions. bitsandbytes' own 4-bit dequantization is not used: on some processors
it is wrong where blocks straddle rows, so the definition is computed here.

Run: python make_quant.py (torch, bitsandbytes, gguf, numpy, safetensors)
"""
import json
import pathlib

import bitsandbytes
import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from safetensors.torch import save_file

SEED = 7
rng = np.random.default_rng(SEED)
tensors = {}
# fp16 scales that a reader may get wrong: zero, smallest and largest subnormal, smallest normal, largest, ordinary; both signs.
HALVES = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x2E66, 0xAE66], dtype=np.uint16)


def put(case, **parts):
    for name, value in parts.items():
        tensors[f"{case}.{name}"] = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value.contiguous()


def weights(rows, cols):
    w = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(0.05)
    w[0, :32] = 0
    w[-1, -32:] *= 40
    return w


def f32(x):
    return np.asarray(x, dtype=np.float32)


# ---- GGUF

HALF_OFFSETS = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
                Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0], Type.MXFP4: []}
for kind, offsets in HALF_OFFSETS.items():
    values, size = GGML_QUANT_SIZES[kind]
    if kind in (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0):
        w = weights(3, 96)
        blocks = gguf.quants.quantize(w, kind)
        put(f"GGUF_{kind.name}.made", w=w, VALUES=blocks, dequantized=f32(gguf.quants.dequantize(blocks, kind)))
    # Every code value under every scale of the list: many blocks of random codes.
    rows, per_row = (9, 2) if values == 32 else (9, 1)
    blocks = rng.integers(0, 256, (rows, per_row, size), dtype=np.uint8)
    for offset in offsets:
        half = HALVES[rng.permutation(rows * per_row) % len(HALVES)].reshape(rows, per_row, 1)
        blocks[:, :, offset : offset + 2] = half.view(np.uint8)
    if kind == Type.MXFP4:
        blocks[:, :, 0] = rng.integers(100, 150, (rows, per_row))
        blocks[:4, :, 0] = [[0, 1], [2, 3], [127, 128], [200, 250]]
    blocks = blocks.reshape(rows, per_row * size)
    put(f"GGUF_{kind.name}.codes", VALUES=blocks, dequantized=f32(gguf.quants.dequantize(blocks, kind)))

# ---- Q4_K and Q6_K have no quantizer in the gguf package: ggml-quants.c's quantize_row_<type>_ref, vectorised over groups of values.
# Sums over a group are taken in ascending order and every step is rounded to fp32.


def nearest(v):
    return np.rint(v.astype(np.float32)).astype(np.int64)


def total(columns):
    acc = np.zeros(len(columns), dtype=np.float32)
    for j in range(columns.shape[1]):
        acc = acc + columns[:, j]
    return acc


def total_from_first(columns):
    acc = columns[:, 0].copy()
    for j in range(1, columns.shape[1]):
        acc = acc + columns[:, j]
    return acc


def half(x):
    return x.astype(np.float16).astype(np.float32)


def q4_k(w):
    x = w.reshape(-1, 32)
    weight = np.sqrt(total(x * x) / np.float32(32))[:, None] + np.abs(x)
    low, high = np.minimum(x.min(1), np.float32(0)), x.max(1)
    flat = low == high
    sum_w, sum_x = total_from_first(weight), total_from_first(weight * x)
    with np.errstate(all="ignore"):
        inverse = np.float32(15) / (high - low)
        codes = np.clip(nearest(inverse[:, None] * (x - low[:, None])), 0, 15)
        scale = np.float32(1) / inverse
        difference = scale[:, None] * codes.astype(np.float32) + low[:, None] - x
        best = total(weight * (difference * difference))
        for step in range(21):
            inverse = (np.float32(-1) + np.float32(0.1) * np.float32(step) + np.float32(15)) / (high - low)
            q = np.clip(nearest(inverse[:, None] * (x - low[:, None])), 0, 15)
            l = q.astype(np.float32)
            sum_l, sum_l2, sum_xl = total(weight * l), total(weight * l * l), total(weight * l * x)
            determinant = sum_w * sum_l2 - sum_l * sum_l
            this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
            this_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
            positive = this_low > 0
            this_scale = np.where(positive, sum_xl / sum_l2, this_scale)
            this_low = np.where(positive, np.float32(0), this_low)
            difference = this_scale[:, None] * l + this_low[:, None] - x
            error = total(weight * (difference * difference))
            better = (determinant > 0) & (error < best) & ~flat
            best, scale, low = np.where(better, error, best), np.where(better, this_scale, scale), np.where(better, this_low, low)
            codes = np.where(better[:, None], q, codes)
    scale, codes = np.where(flat, np.float32(0), scale), np.where(flat[:, None], 0, codes)
    scales, mins, codes, x = scale.reshape(-1, 8), -low.reshape(-1, 8), codes.reshape(-1, 8, 32), x.reshape(-1, 8, 32)
    top_s, top_m = np.maximum(scales.max(1), 0), np.maximum(mins.max(1), 0)
    with np.errstate(all="ignore"):
        s = np.where(top_s[:, None] > 0, np.minimum(nearest((np.float32(63) / top_s)[:, None] * scales), 63), 0)
        m = np.where(top_m[:, None] > 0, np.minimum(nearest((np.float32(63) / top_m)[:, None] * mins), 63), 0)
        d, dmin = top_s / np.float32(63), top_m / np.float32(63)
        ds, dm = half(d)[:, None] * s.astype(np.float32), half(dmin)[:, None] * m.astype(np.float32)
        q = np.clip(nearest((x + dm[:, :, None]) / ds[:, :, None]), 0, 15)
    codes = np.where(ds[:, :, None] != 0, q, codes).astype(np.uint8)
    blocks = np.zeros((len(s), 144), dtype=np.uint8)
    blocks[:, 0:2] = d.astype(np.float16).reshape(-1, 1).view(np.uint8)
    blocks[:, 2:4] = dmin.astype(np.float16).reshape(-1, 1).view(np.uint8)
    blocks[:, 4:8] = s[:, :4] | (s[:, 4:] >> 4) << 6
    blocks[:, 8:12] = m[:, :4] | (m[:, 4:] >> 4) << 6
    blocks[:, 12:16] = s[:, 4:] & 15 | (m[:, 4:] & 15) << 4
    blocks[:, 16:] = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(-1, 128)
    return blocks.reshape(len(w), -1)


def q6_k(w):
    x = w.reshape(-1, 16)
    top = x[np.arange(len(x)), np.abs(x).argmax(1)]
    tiny = np.abs(top) < np.float32(1e-15)
    square = x * x
    scale = best = codes = None
    with np.errstate(all="ignore"):
        for step in [0, *range(-9, 0), *range(1, 10)]:
            inverse = -(np.float32(32) + np.float32(0.1) * np.float32(step)) / top
            q = np.clip(nearest(inverse[:, None] * x), -32, 31)
            l = q.astype(np.float32)
            sum_lx, sum_l2 = total(square * x * l), total(square * l * l)
            better = np.ones(len(x), dtype=bool) if codes is None else (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
            this = np.where(sum_l2 != 0, sum_lx / sum_l2, np.float32(0))
            if codes is None:
                scale, best, codes = this, this * sum_lx, q
            scale, best = np.where(better, this, scale), np.where(better, this * sum_lx, best)
            codes = np.where(better[:, None], q, codes)
    scale = np.where(tiny, np.float32(0), scale).astype(np.float32).reshape(-1, 16)
    codes = np.where(tiny[:, None], -32, codes).reshape(-1, 16, 16)
    x = x.reshape(-1, 16, 16)
    top = scale[np.arange(len(scale)), np.abs(scale).argmax(1)]
    zero = np.abs(top) < np.float32(1e-15)
    with np.errstate(all="ignore"):
        inverse = np.float32(-128) / top
        d = np.float32(1) / inverse
        s = np.minimum(nearest(inverse[:, None] * scale), 127)
        ds = half(d)[:, None] * s.astype(np.float32)
        q = np.clip(nearest(x / ds[:, :, None]), -32, 31)
    codes = (np.where(ds[:, :, None] != 0, q, codes) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    blocks = np.zeros((len(scale), 210), dtype=np.uint8)
    blocks[:, :128] = (codes[:, :, :2] & 15 | (codes[:, :, 2:] & 15) << 4).reshape(-1, 128)
    blocks[:, 128:192] = (codes[:, :, 0] >> 4 | codes[:, :, 1] >> 4 << 2 | codes[:, :, 2] >> 4 << 4 | codes[:, :, 3] >> 4 << 6).reshape(-1, 64)
    blocks[:, 192:208] = s.astype(np.int8).view(np.uint8)
    blocks[:, 208:] = d.astype(np.float16).reshape(-1, 1).view(np.uint8)
    blocks[zero] = 0
    return blocks.reshape(len(w), -1)


for kind, quantizer in ((Type.Q4_K, q4_k), (Type.Q6_K, q6_k)):
    w = weights(3, 512)
    w[1, :256] = 0
    blocks = quantizer(w)
    put(f"GGUF_{kind.name}.made", w=w, VALUES=blocks, dequantized=f32(gguf.quants.dequantize(blocks, kind)))

# ---- bitsandbytes


def unpack(packed, count):
    codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)
    return codes[:count]


for kind in ("nf4", "fp4"):
    for rows, cols, block, nested in ((6, 128, 64, False), (5, 65, 64, False), (4, 96, 32, True), (3, 250, 128, True)) + (((1, 4160, 4096, False),) if kind == "nf4" else ()):
        w = weights(rows, cols)
        packed, state = bnb.quantize_4bit(torch.from_numpy(w), blocksize=block, quant_type=kind, compress_statistics=nested)
        parts = {"VALUES": packed.numpy(), "QUANT_MAP": state.code.numpy(), "BLOCK_SIZE": np.array([block], dtype=np.int64)}
        absmax = state.absmax.numpy()
        if nested:
            inner = state.state2
            parts |= {"SCALES": absmax, "NESTED_SCALES": inner.absmax.numpy(), "NESTED_QUANT_MAP": inner.code.numpy(),
                      "NESTED_OFFSET": f32(state.offset.numpy()).reshape(1),
                      "NESTED_BLOCK_SIZE": np.array([inner.blocksize], dtype=np.int64)}
            nested_scales = np.repeat(inner.absmax.numpy(), inner.blocksize)[: len(absmax)]
            absmax = f32(f32(inner.code.numpy()[absmax] * nested_scales) + f32(state.offset.numpy()))
        else:
            parts["SCALES"] = absmax
        codes = unpack(parts["VALUES"].reshape(-1), rows * cols)
        dequantized = f32(state.code.numpy()[codes] * np.repeat(absmax, block)[: rows * cols])
        put(f"{kind.upper()}.{rows}x{cols}_{block}{'_nested' if nested else ''}", w=w, dequantized=dequantized.reshape(rows, cols), **parts)

w = weights(5, 70)
codes, scb, _ = bnb.int8_vectorwise_quant(torch.from_numpy(w).half().float())
put("LLM_INT8.made", w=f32(torch.from_numpy(w).half().float().numpy()), VALUES=codes.numpy(), SCALES=f32(scb.numpy()),
    dequantized=bnb.int8_vectorwise_dequant(codes, scb).numpy())

# ---- integers with a scale for each group

for groups in (1, 3):
    codes = rng.integers(-128, 128, (5, 96), dtype=np.int8)
    scales = f32(rng.standard_normal((5, groups)) * 0.01)
    put(f"INT8.{groups}", VALUES=codes, SCALES=scales, dequantized=codes.astype(np.float32) * np.repeat(scales, 96 // groups, axis=1))


def pack_nibbles(q, axis, order=range(8)):
    """Eight codes to an int32 along the axis; nibble i of a word is code order[i]."""
    q = np.moveaxis(q, axis, -1).astype(np.uint32)
    q = q.reshape(*q.shape[:-1], -1, 8)
    words = np.zeros(q.shape[:-1], dtype=np.uint32)
    for i, source in enumerate(order):
        words |= q[..., source] << np.uint32(4 * i)
    return np.moveaxis(words, -1, axis).view(np.int32)


for scheme, less in (("GPTQ", 1), ("GPTQ_V2", 0)):
    for case in ("groups", "act_order"):
        rows, cols, groups = 16, 64, 4
        q = rng.integers(0, 16, (cols, rows))
        zeros = rng.integers(less, 16, (groups, rows))
        scales = (rng.standard_normal((groups, rows)) * 0.01).astype(np.float16)
        index = np.repeat(np.arange(groups, dtype=np.int32), cols // groups)
        if case == "act_order":
            index = rng.permutation(index)
        parts = {"VALUES": pack_nibbles(q, 0), "ZEROS": pack_nibbles(zeros - less, 1), "SCALES": scales, "GROUP_INDEX": index}
        put(f"{scheme}.{case}", dequantized=((q - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]).T, **parts)

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
q = rng.integers(0, 16, (64, 24))
zeros = rng.integers(0, 16, (4, 24))
scales = (rng.standard_normal((4, 24)) * 0.01).astype(np.float16)
index = np.repeat(np.arange(4), 16)
put("AWQ.groups", VALUES=pack_nibbles(q, 1, AWQ_ORDER), ZEROS=pack_nibbles(zeros, 1, AWQ_ORDER), SCALES=scales,
    dequantized=((q - zeros[index]).astype(np.float32) * scales.astype(np.float32)[index]).T)

finite = np.array([b for b in range(256) if b & 0x7F != 0x7F], dtype=np.uint8)
for case, shape in (("tensor", (1,)), ("row", (6, 1)), ("blocks", (2, 2))):
    rows, cols = (130, 130) if case == "blocks" else (6, 127)
    codes = np.resize(rng.permutation(finite), (rows, cols))
    scales = f32(rng.standard_normal(shape) * 0.01)
    whole = np.repeat(np.repeat(scales, 128, axis=0), 128, axis=1)[:rows, :cols] if case == "blocks" else np.broadcast_to(scales, (rows, cols)) if case == "tensor" else np.repeat(scales, cols, axis=1)
    values = torch.from_numpy(codes.copy()).view(torch.float8_e4m3fn).float().numpy()
    put(f"FP8_E4M3.{case}", VALUES=codes, SCALES=scales, dequantized=values * whole)

versions = {"seed": SEED, "torch": torch.__version__, "bitsandbytes": bitsandbytes.__version__, "gguf": "0.19.0", "numpy": np.__version__}
save_file(tensors, pathlib.Path(__file__).with_name("quant.safetensors"), metadata={"made_by": json.dumps(versions)})
print(sum(t.numel() * t.element_size() for t in tensors.values()), "bytes,", len(tensors), "tensors")
