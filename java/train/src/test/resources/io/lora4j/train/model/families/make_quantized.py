#!/usr/bin/env python3
"""Writes the quantized checkpoints beside this file and what transformers + PEFT compute with them: python make_quantized.py

As make.py. The bitsandbytes checkpoints (NF4, FP4, LLM.int8) are quantized and saved by transformers with bitsandbytes on a CPU; the
others by this script, from the definitions of their layouts. The model that transformers and PEFT train in fp32 has the weights that
the definitions decode, every step rounded to fp32.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, bitsandbytes 0.50.2.
"""
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from reference import randomize, record

HERE = Path(__file__).resolve().parent
# Rows of 48 values: blocks of 64 straddle them.
SIZES = dict(vocab_size=61, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=1, eos_token_id=2)
INT8_STEP = np.float32(0.007874015718698502)


def dense(config, cls):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = cls._from_config(config, attn_implementation="eager").float()
    randomize(model)
    return model


def finish(name, folder, model, decoded, **lora):
    """Gives the model the decoded weights and records what it computes."""
    state = model.state_dict()
    for key, value in decoded.items():
        assert state[key].shape == value.shape and not torch.equal(state[key], value), key
        assert torch.nn.functional.mse_loss(state[key], value) < 0.05 * state[key].var(), key
        state[key] = value
    model.load_state_dict(state)
    record(name, folder, model, **lora)


def nf4_or_fp4(tensors, name, out):
    """w = map[q] * absmax, absmax = nested map[q8] * nested scale + offset; rounded to fp32 at every step."""
    kind = [k for k in ("nf4", "fp4") if f"{name}.quant_state.bitsandbytes__{k}" in tensors]
    state = json.loads(bytes(tensors[f"{name}.quant_state.bitsandbytes__{kind[0]}"].numpy()))
    absmax = tensors[name + ".absmax"].numpy()
    if "nested_blocksize" in state:
        nested = tensors[name + ".nested_absmax"].numpy().repeat(state["nested_blocksize"])[:absmax.size]
        absmax = tensors[name + ".nested_quant_map"].numpy()[absmax] * nested + np.float32(state["nested_offset"])
    packed = tensors[name].numpy().reshape(-1)
    codes = np.stack([packed >> 4, packed & 15], 1).reshape(-1)[:out.numel()]
    scales = absmax.astype(np.float32).repeat(state["blocksize"])[:out.numel()]
    return torch.from_numpy(tensors[name + ".quant_map"].numpy()[codes] * scales).reshape(out.shape)


def bitsandbytes(name, config, cls, quantization, layers=14, **lora):
    model = dense(config, cls)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        quantized = AutoModelForCausalLM.from_pretrained(temporary, quantization_config=quantization, dtype=torch.float32)
    quantized.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tensors = load_file(folder / "model.safetensors")
    decoded = {}
    for key, value in model.state_dict().items():
        module = key.removesuffix(".weight")
        if module + ".SCB" in tensors:
            q, scb = tensors[key].numpy().astype(np.float32), tensors[module + ".SCB"].numpy()
            decoded[key] = torch.from_numpy(q * scb[:, None] * INT8_STEP)
        elif key + ".absmax" in tensors:
            decoded[key] = nf4_or_fp4(tensors, key, value)
    assert len(decoded) == layers, len(decoded)
    finish(name, folder, model, decoded, **lora)


def pack(values, axis, order=range(8)):
    """Eight codes of 4 bits in a word, along an axis; the first of the order in the lowest bits."""
    values = np.moveaxis(values.astype(np.uint32), axis, 0)
    words = sum(values[i::8] << np.uint32(4 * place) for place, i in enumerate(order))
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32))


def groups_of(w, groups):
    """Codes, zero points and scales of w [in, out], whose rows belong to groups."""
    q = np.zeros(w.shape, np.int64)
    zeros = np.zeros((groups.max() + 1, w.shape[1]), np.int64)
    scales = np.zeros(zeros.shape, np.float16)
    for g in range(len(zeros)):
        rows = w[groups == g]
        low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)
        scales[g] = ((high - low) / 15).astype(np.float16)
        zeros[g] = np.clip(np.round(-low / scales[g]), 1, 15)
        q[groups == g] = np.clip(np.round(rows / scales[g].astype(np.float32)) + zeros[g], 0, 15)
    decoded = scales[groups].astype(np.float32) * (q - zeros[groups]).astype(np.float32)
    return q, zeros, scales, torch.from_numpy(np.ascontiguousarray(decoded.T))


def integers(name, config, cls, quantization, encode, **lora):
    """A checkpoint whose layers encode(w [in, out], module) turns into tensors and decoded weights."""
    model = dense(config, cls)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.config.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": quantization}, indent=2, sort_keys=True) + "\n")
    tensors, decoded = {}, {}
    for key, value in model.state_dict().items():
        module = key.removesuffix(".weight")
        if "proj" not in key or key.endswith(".bias"):
            if not (key == "lm_head.weight" and config.tie_word_embeddings):
                tensors[key] = value.clone()
            continue
        own, decoded[key] = encode(value.numpy(), module)
        tensors.update({f"{module}.{k}": v for k, v in own.items()})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    finish(name, folder, model, decoded, **lora)


def gptq(version, group, act_order):
    def encode(w, module):
        rng = np.random.default_rng(len(module))
        order = rng.permutation(w.shape[1]) if act_order else np.arange(w.shape[1])
        groups = (order // group).astype(np.int64)
        q, zeros, scales, decoded = groups_of(w.T, groups)
        tensors = dict(qweight=pack(q, 0), qzeros=pack(zeros - (2 - version), 1), scales=torch.from_numpy(scales),
                       g_idx=torch.from_numpy(groups.astype(np.int32)))
        if module.endswith("o_proj"):
            tensors["bias"] = torch.zeros(w.shape[0], dtype=torch.float16)  # as older packers left them
        return tensors, decoded
    return encode


def awq(w, module):
    q, zeros, scales, decoded = groups_of(w.T, np.arange(w.shape[1]) // 16)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return dict(qweight=pack(q, 1, order), qzeros=pack(zeros, 1, order), scales=torch.from_numpy(scales)), decoded


def fp8(w, module):
    """A scale for each block, the tensor or each row, as the layer's name says."""
    w = torch.from_numpy(w)
    rows, cols = w.shape
    if "k_proj" in module:
        scale = w.abs().max() / 448
    elif "v_proj" in module:
        scale = w.abs().amax(1, keepdim=True) / 448
    else:
        scale = torch.stack([torch.stack([b.abs().max() / 448 for b in r.split(128, 1)]) for r in w.split(128, 0)])
    each = scale
    if "k_proj" not in module and "v_proj" not in module:
        each = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]
    q = (w / each).to(torch.float8_e4m3fn)
    name = "weight_scale" if "k_proj" in module or "v_proj" in module else "weight_scale_inv"
    return {"weight": q, name: scale.contiguous()}, q.float() * each


bitsandbytes("nf4", LlamaConfig(**SIZES, tie_word_embeddings=True), LlamaForCausalLM,
             BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))
bitsandbytes("nf4_double", LlamaConfig(**SIZES), LlamaForCausalLM,
             BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True))
bitsandbytes("fp4_double", Qwen2Config(**SIZES), Qwen2ForCausalLM,
             BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True,
                                llm_int8_skip_modules=["lm_head", "model.layers.1.self_attn", "0.mlp.down_proj"]),
             layers=9, target_modules=["q_proj", "down_proj"])
bitsandbytes("llm_int8", LlamaConfig(**SIZES), LlamaForCausalLM, BitsAndBytesConfig(load_in_8bit=True))
GPTQ = dict(quant_method="gptq", bits=4, group_size=16, desc_act=False, sym=False, damp_percent=0.1)
integers("gptq", LlamaConfig(**SIZES), LlamaForCausalLM, GPTQ, gptq(1, 16, False))
integers("gptq_v2", LlamaConfig(**SIZES), LlamaForCausalLM, GPTQ | dict(desc_act=True, checkpoint_format="gptq_v2"),
         gptq(2, 16, True), target_modules=["q_proj", "o_proj", "down_proj"])
integers("awq", Qwen2Config(**SIZES, tie_word_embeddings=True), Qwen2ForCausalLM,
         dict(quant_method="awq", bits=4, group_size=16, version="gemm", zero_point=True), awq)
integers("fp8", LlamaConfig(**{**SIZES, "hidden_size": 144, "intermediate_size": 136, "num_hidden_layers": 1}), LlamaForCausalLM,
         dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128]), fp8, r=2,
         target_modules=["q_proj", "v_proj", "down_proj"])
