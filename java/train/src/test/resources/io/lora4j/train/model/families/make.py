#!/usr/bin/env python3
"""Writes the random models beside this file and what transformers + PEFT compute with them: python make.py

One folder for each model: a Hugging Face checkpoint of two layers, adapter/ (PEFT, B not zero), expected.json (token rows and
labels; losses and gradient norms of five AdamW steps, loss = mean over target tokens, lr 5e-3, weight decay 0.01),
expected.safetensors (logits of each row, gradients of the first step, the adapter after the last). transformers reads the
checkpoint back as it was stored and computes in fp32 with eager attention, one row at a time, without padding.

What is spread over the models: family, tied or not, dtype, one file or three shards, spelling of config.json (transformers 4
or 5), bias, heads, rope, windows. Rows have 1 to 40 tokens: longer than original_max_position_embeddings and every window.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2.
"""
import json
import shutil
from pathlib import Path

import torch
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

from reference import randomize, record

HERE = Path(__file__).resolve().parent
SIZES = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=1, eos_token_id=2)


def save(model, folder, shards):
    """One file, or as many shards of about the same size as wanted."""
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    limit = total // shards + 1
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, max_shard_size=limit)
        if len(list(folder.glob("model*.safetensors"))) <= shards:
            break
        limit += total // 100
    assert len(list(folder.glob("model*.safetensors"))) == shards, folder
    (folder / "generation_config.json").unlink(missing_ok=True)


def respell(folder, spelling, remove, replace):
    """Turns config.json into what transformers 4 wrote (5 writes only its own spelling), and edits it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    if spelling == 4:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        config["torch_dtype"] = config.pop("dtype")
        config["transformers_version"] = "4.44.2"
        config["_name_or_path"] = folder.name
        config.pop("layer_types", None)
    for name in remove:
        del config[name]
    config.update(replace)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make(name, config, cls, dtype=torch.float32, shards=1, spelling=5, remove=(), replace={}, **lora):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    stored = cls(config).float()
    randomize(stored)
    folder = HERE / name
    save(stored.to(dtype), folder, shards)
    respell(folder, spelling, remove, replace)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for parameter, value in stored.state_dict().items():
        assert torch.equal(base.state_dict()[parameter], value.float()), parameter
    record(name, folder, base, **lora)


BF16, F16 = torch.bfloat16, torch.float16
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
QV = ["q_proj", "v_proj", "down_proj"]

# Llama 2: a head of keys for each of queries, in transformers 4's spelling with what old configs left out.
make("llama2", LlamaConfig(**{**SIZES, "num_key_value_heads": 4}), LlamaForCausalLM, F16, spelling=4,
     remove=["num_key_value_heads", "head_dim", "rms_norm_eps", "attention_bias", "mlp_bias", "rope_theta"])
# SmolLM2: three query heads for each of keys, tied.
make("smollm2", LlamaConfig(**{**SIZES, "num_attention_heads": 6, "tie_word_embeddings": True}), LlamaForCausalLM, BF16,
     replace=dict(is_llama_config=True, rope_interleaved=False, pretraining_tp=1))
make("llama3", LlamaConfig(**SIZES, head_dim=16, rope_parameters=LLAMA3), LlamaForCausalLM, shards=3, use_rslora=True,
     target_modules=QV, rank_pattern={"layers.1.self_attn.q_proj": 6}, alpha_pattern={"v_proj": 3})
make("llama3_tied", LlamaConfig(**{**SIZES, "eos_token_id": [2, 5, 7]}, rope_parameters=LLAMA3, tie_word_embeddings=True),
     LlamaForCausalLM, BF16, spelling=4)
# Everything that Llama's class can do beside: biases, one head of keys, linear rope; a dtype that is not the file's.
make("llama_bias", LlamaConfig(**{**SIZES, "num_key_value_heads": 1}, attention_bias=True, mlp_bias=True, head_dim=10,
                               rope_parameters=dict(rope_type="linear", rope_theta=5000, factor=2.5)),
     LlamaForCausalLM, F16, shards=3, spelling=4, replace=dict(torch_dtype="float32"))
make("mistral", MistralConfig(**SIZES, sliding_window=11), MistralForCausalLM, BF16, shards=3, spelling=4,
     target_modules=["k_proj", "o_proj", "up_proj"])
make("mistral_full", MistralConfig(**SIZES, sliding_window=None, head_dim=8, tie_word_embeddings=True), MistralForCausalLM, F16,
     target_modules=["o_proj", "gate_proj"])
# Ministral: a Mistral config with layer_types.
make("mistral_mixed", MistralConfig(**SIZES, sliding_window=16), MistralForCausalLM, target_modules=QV,
     replace=dict(layer_types=["full_attention", "sliding_attention"]))
make("qwen2", Qwen2Config(**SIZES, tie_word_embeddings=True), Qwen2ForCausalLM, BF16, spelling=4)
make("qwen2_sliding", Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=9, max_window_layers=1), Qwen2ForCausalLM, F16,
     shards=3, spelling=4, target_modules=QV)
make("qwen2_all_sliding", Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=2, max_window_layers=0), Qwen2ForCausalLM,
     shards=3, target_modules=QV)
make("qwen3", Qwen3Config(**SIZES, head_dim=12, use_sliding_window=True, sliding_window=17,
                          layer_types=["sliding_attention", "full_attention"]), Qwen3ForCausalLM, shards=3,
     target_modules=r".*\.(1\..*_proj|0\.self_attn\.(q|k)_proj)")
make("qwen3_tied", Qwen3Config(**SIZES, head_dim=8, attention_bias=True, tie_word_embeddings=True), Qwen3ForCausalLM, BF16,
     spelling=4)
