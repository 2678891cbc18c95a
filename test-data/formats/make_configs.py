#!/usr/bin/env python3
"""Writes configs/real.json: config.json of published models and of corner cases, and how transformers reads them.

python make_configs.py. Needs torch and transformers; their versions are recorded. The configs of published models are facts
that were written down here; nothing is fetched. `means` holds what transformers' configuration class makes of a config, and the
number of parameters of the model it builds on the meta device.
"""
import json
import tempfile
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).resolve().parent


def llama(**fields):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "initializer_range": 0.02,
            "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "tie_word_embeddings": False, **fields}


def qwen(kind, **fields):
    return {"architectures": [f"Qwen{kind}ForCausalLM"], "model_type": f"qwen{kind}", "attention_dropout": 0.0, "bos_token_id": 151643,
            "eos_token_id": 151645, "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-06, "use_cache": True,
            "torch_dtype": "bfloat16", "use_sliding_window": False, **fields}


def mistral(**fields):
    return {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, **fields}


def rope3(factor):
    return {"factor": factor, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3"}


SMALL = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4}
CONFIGS = {
    "Llama-2-7b-hf": llama(_name_or_path="meta-llama/Llama-2-7b-hf", hidden_size=4096, intermediate_size=11008,
                           max_position_embeddings=4096, num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32,
                           pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=None, torch_dtype="float16",
                           transformers_version="4.31.0.dev0", vocab_size=32000),
    "Llama-2-7b-hf, first release": llama(hidden_size=4096, intermediate_size=11008, max_length=4096, max_position_embeddings=2048,
                                          num_attention_heads=32, num_hidden_layers=32, pad_token_id=0, rms_norm_eps=1e-05,
                                          torch_dtype="float16", transformers_version="4.31.0.dev0", vocab_size=32000),
    "Meta-Llama-3-8B": llama(attention_bias=False, attention_dropout=0.0, bos_token_id=128000, eos_token_id=128001, hidden_size=4096,
                             intermediate_size=14336, max_position_embeddings=8192, num_attention_heads=32, num_hidden_layers=32,
                             num_key_value_heads=8, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=None, rope_theta=500000.0,
                             transformers_version="4.40.0.dev0", vocab_size=128256),
    "Llama-3.1-8B-Instruct": llama(attention_bias=False, attention_dropout=0.0, bos_token_id=128000,
                                   eos_token_id=[128001, 128008, 128009], hidden_size=4096, intermediate_size=14336,
                                   max_position_embeddings=131072, mlp_bias=False, num_attention_heads=32, num_hidden_layers=32,
                                   num_key_value_heads=8, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=rope3(8.0),
                                   rope_theta=500000.0, transformers_version="4.42.3", vocab_size=128256),
    "Llama-3.2-1B-Instruct": llama(attention_bias=False, attention_dropout=0.0, bos_token_id=128000,
                                   eos_token_id=[128001, 128008, 128009], head_dim=64, hidden_size=2048, intermediate_size=8192,
                                   max_position_embeddings=131072, mlp_bias=False, num_attention_heads=32, num_hidden_layers=16,
                                   num_key_value_heads=8, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=rope3(32.0),
                                   rope_theta=500000.0, tie_word_embeddings=True, transformers_version="4.45.0.dev0",
                                   vocab_size=128256),
    "TinyLlama-1.1B-Chat-v1.0": llama(attention_bias=False, hidden_size=2048, intermediate_size=5632, max_position_embeddings=2048,
                                      num_attention_heads=32, num_hidden_layers=22, num_key_value_heads=4, pretraining_tp=1,
                                      rms_norm_eps=1e-05, rope_scaling=None, rope_theta=10000.0, transformers_version="4.35.0",
                                      vocab_size=32000),
    "SmolLM-135M": llama(attention_bias=False, attention_dropout=0.0, bos_token_id=0, eos_token_id=0, hidden_size=576,
                         intermediate_size=1536, max_position_embeddings=2048, mlp_bias=False, num_attention_heads=9,
                         num_hidden_layers=30, num_key_value_heads=3, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=None,
                         rope_theta=10000.0, tie_word_embeddings=True, transformers_version="4.42.3", vocab_size=49152),
    "SmolLM2-135M-Instruct": llama(attention_bias=False, attention_dropout=0.0, hidden_size=576, initializer_range=0.041666666666666664,
                                   intermediate_size=1536, is_llama_config=True, max_position_embeddings=8192, mlp_bias=False,
                                   num_attention_heads=9, num_hidden_layers=30, num_key_value_heads=3, pad_token_id=2, pretraining_tp=1,
                                   rms_norm_eps=1e-05, rope_interleaved=False, rope_scaling=None, rope_theta=100000,
                                   tie_word_embeddings=True, transformers_version="4.42.3", vocab_size=49152,
                                   **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}}),
    "deepseek-coder-6.7b-instruct": llama(bos_token_id=32013, eos_token_id=32021, hidden_size=4096, intermediate_size=11008,
                                          max_position_embeddings=16384, num_attention_heads=32, num_hidden_layers=32,
                                          num_key_value_heads=32, pretraining_tp=1, rms_norm_eps=1e-06,
                                          rope_scaling={"factor": 4.0, "type": "linear"}, rope_theta=100000,
                                          transformers_version="4.34.1", vocab_size=32256),
    "Mistral-7B-v0.1": mistral(rope_theta=10000.0, sliding_window=4096, transformers_version="4.34.0.dev0", vocab_size=32000),
    "Mistral-7B-v0.3": mistral(attention_dropout=0.0, rope_theta=1000000.0, sliding_window=None, transformers_version="4.42.0.dev0",
                               vocab_size=32768),
    "Mistral-Nemo-Base-2407": mistral(attention_dropout=0.0, head_dim=128, hidden_size=5120, max_position_embeddings=128000,
                                      num_hidden_layers=40, rope_theta=1000000.0, sliding_window=None,
                                      transformers_version="4.43.0.dev0", vocab_size=131072),
    "Qwen2-0.5B": qwen(2, eos_token_id=151643, hidden_size=896, intermediate_size=4864, max_position_embeddings=131072,
                       max_window_layers=24, num_attention_heads=14, num_hidden_layers=24, num_key_value_heads=2, rope_theta=1000000.0,
                       sliding_window=131072, tie_word_embeddings=True, transformers_version="4.40.1", vocab_size=151936),
    "Qwen2.5-7B-Instruct": qwen(2, hidden_size=3584, intermediate_size=18944, max_position_embeddings=32768, max_window_layers=28,
                                num_attention_heads=28, num_hidden_layers=28, num_key_value_heads=4, rope_theta=1000000.0,
                                sliding_window=131072, tie_word_embeddings=False, transformers_version="4.43.1", vocab_size=152064),
    "DeepSeek-R1-Distill-Qwen-1.5B": qwen(2, eos_token_id=151643, hidden_size=1536, intermediate_size=8960,
                                          max_position_embeddings=131072, max_window_layers=21, num_attention_heads=12,
                                          num_hidden_layers=28, num_key_value_heads=2, rope_theta=10000, sliding_window=4096,
                                          tie_word_embeddings=False, transformers_version="4.44.0", use_mrope=False,
                                          vocab_size=151936),
    "Qwen3-0.6B": qwen(3, attention_bias=False, head_dim=128, hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960,
                       max_window_layers=28, num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8, rope_scaling=None,
                       rope_theta=1000000, sliding_window=None, tie_word_embeddings=True, transformers_version="4.51.0",
                       vocab_size=151936),
    # Corner cases: what is left out, and what fields do to each other.
    "llama defaults": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "mistral defaults": {"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
    "qwen2 defaults": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
    "qwen3 defaults": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "model_type alone": {"model_type": "llama", **SMALL},
    "null heads and ids": {"model_type": "llama", **SMALL, "num_key_value_heads": None, "bos_token_id": None, "eos_token_id": None,
                           "head_dim": None},
    "bias, one key head": {"model_type": "llama", **SMALL, "num_key_value_heads": 1, "head_dim": 6, "attention_bias": True,
                           "mlp_bias": True, "hidden_act": "swish", "rope_theta": 5000},
    "mistral, window left out": {"model_type": "mistral", **SMALL, "num_key_value_heads": 2},
    "mistral, layer_types": {"model_type": "mistral", **SMALL, "head_dim": 4, "num_key_value_heads": 2, "sliding_window": 8,
                             "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]},
    "llama, window without effect": {"model_type": "llama", **SMALL, "sliding_window": 8},
    "qwen2, window left out": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "use_sliding_window": True,
                               "max_window_layers": 3},
    "qwen2, null window": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "use_sliding_window": True,
                           "sliding_window": None, "max_window_layers": 0},
    "qwen2, all layers": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 8,
                          "max_window_layers": 0},
    "qwen2, no layer": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 8},
    "qwen3, layer_types": {"model_type": "qwen3", **SMALL, "num_key_value_heads": 2, "head_dim": 8, "use_sliding_window": True,
                           "sliding_window": 8, "max_window_layers": 4, "attention_bias": True,
                           "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]},
    "rope_parameters": {"model_type": "llama", **SMALL, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000, "factor": 8,
                                                                           "low_freq_factor": 1, "high_freq_factor": 4,
                                                                           "original_max_position_embeddings": 32}},
    "rope_parameters without a theta": {"model_type": "llama", **SMALL, "rope_theta": 777, "rope_parameters": {"rope_type": "default"}},
    "llama3 without the original length": {"model_type": "llama", **SMALL, "max_position_embeddings": 96, "rope_scaling": {
        "type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}},
}


def means(config):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        c = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        parameters = transformers.AutoModelForCausalLM.from_config(c).num_parameters()
    window = getattr(c, "sliding_window", None) if c.model_type != "llama" else None
    # Mistral's layers all slide; the other classes have made a list of every layer.
    types = getattr(c, "layer_types", None) or ["sliding_attention"] * c.num_hidden_layers
    sliding = [i for i, t in enumerate(types) if t == "sliding_attention"] if window else []
    eos = c.eos_token_id
    return {"vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
            "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
            "num_key_value_heads": c.num_key_value_heads,
            "head_dim": getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads,
            "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps,
            "tie_word_embeddings": c.tie_word_embeddings, "bos_token_id": c.bos_token_id,
            "eos_token_ids": eos if isinstance(eos, list) else [] if eos is None else [eos], "pad_token_id": c.pad_token_id,
            "rope": {k: v for k, v in c.rope_parameters.items() if k != "type"},
            "sliding_window": window if sliding else 0, "sliding_layers": sliding, "parameters": parameters}


out = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__},
       "configs": [{"name": name, "config": config, "means": means(config)} for name, config in CONFIGS.items()]}
(HERE / "configs" / "real.json").write_text(json.dumps(out, indent=1) + "\n")
