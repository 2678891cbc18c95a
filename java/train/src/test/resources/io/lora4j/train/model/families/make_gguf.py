#!/usr/bin/env python3
"""Writes the GGUF models beside this file and what transformers + PEFT compute with them: python make_gguf.py

As make.py, with model.gguf for a checkpoint: random weights in the order of rows that llama.cpp's converter gives them, quantized by
the gguf package; what it has no quantizer for (the K types, IQ4_NL, MXFP4) is random blocks. The model that transformers and PEFT
train has the weights that the package decodes, and is asserted to be what transformers itself loads from the file where it can.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, gguf 0.19.0.
"""
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

from reference import randomize, record

HERE = Path(__file__).resolve().parent
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=3)
MERGES = ["t h", "th e", "i n", "a n", "Ġ the", "e r", "o n", "an d"]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
         "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
         "o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
         "down_proj": "ffn_down"}
# Where the f16 scales lie in a block; MXFP4 has a power of two, 2^(e - 128), instead.
SCALES = {T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,), T.IQ4_NL: (0,)}


def byte_alphabet():
    """GPT-2's letters for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(other)) for b in range(256)]


def ours(name):
    """The file's name of a tensor."""
    parts = name.split(".")
    prefix = f"blk.{parts[2]}." if parts[1] == "layers" else ""
    return prefix + NAMES[parts[-2]] + "." + parts[-1]


def interleave(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def separate(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def encode(w, type, rng):
    """The blocks of a matrix; random ones of about its size where the package cannot quantize."""
    if type not in SCALES and type != T.MXFP4:
        return gguf.quantize(w, type)
    block, size = gguf.GGML_QUANT_SIZES[type]
    blocks = rng.integers(0, 256, (w.size // block, size), dtype=np.uint8)
    if type == T.MXFP4:
        blocks[:, 0] = rng.integers(122, 125, blocks.shape[0])
        return blocks.reshape(w.shape[0], -1)

    def scaled(d):
        for at in SCALES[type]:
            blocks[:, at:at + 2] = np.float16(d).reshape(-1, 1).view(np.uint8)
        return gguf.dequantize(blocks, type)

    spread = scaled(np.ones(blocks.shape[0])).std()
    scaled(w.std() / spread * rng.uniform(0.5, 1.5, blocks.shape[0]))
    return blocks.reshape(w.shape[0], -1)


def make(name, arch, config, cls, type_of, checked=True, divisors=None, **lora):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    model = cls._from_config(config, attn_implementation="eager").float()
    randomize(model)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    w = gguf.GGUFWriter(folder / "model.gguf", arch)
    w.add_name(name)
    w.add_block_count(config.num_hidden_layers)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if arch == "llama":
        w.add_vocab_size(config.vocab_size)
        w.add_rope_dimension_count(head_dim)
    tokens = SPECIAL + byte_alphabet() + [m.replace(" ", "") for m in MERGES]
    tokens = (tokens + [f"[PAD{i}]" for i in range(config.vocab_size)])[:config.vocab_size]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2" if arch.startswith("qwen") else "smollm")
    w.add_token_list(tokens)
    w.add_token_types([3 if t in SPECIAL else 5 if t.startswith("[PAD") else 1 for t in tokens])
    w.add_token_merges(MERGES if config.vocab_size >= len(tokens) else [])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_eot_token_id(5)
    w.add_pad_token_id(3)
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)
    if divisors is not None:
        w.add_tensor("rope_freqs.weight", np.float32(divisors))
    state = {}
    for key, value in model.state_dict().items():
        value = value.numpy()
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(key.split(".")[-2])
        turned = heads and arch == "llama"
        stored = interleave(value, heads) if turned else value
        type = type_of(key) if value.ndim == 2 else T.F32
        data = encode(stored, type, rng) if type != T.F32 else stored
        w.add_tensor(ours(key), data, raw_dtype=type)
        decoded = gguf.dequantize(data, type).reshape(stored.shape)
        state[key] = torch.from_numpy((separate(decoded, heads) if turned else decoded).copy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    if divisors is not None:
        model.model.rotary_emb.inv_freq /= torch.tensor(divisors, dtype=torch.float32)
    if checked:
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32)
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, state[key]), key
    record(name, folder, model, **{"r": 2, "lora_alpha": 4, **lora})


def mixed(key):
    """A type for each place, of those with blocks of 32."""
    part = key.split(".")[-2]
    return {"embed_tokens": T.Q8_0, "q_proj": T.Q4_1, "k_proj": T.Q5_0, "v_proj": T.Q8_0, "o_proj": T.Q4_0, "gate_proj": T.Q5_1,
            "up_proj": T.Q4_1, "down_proj": T.F16, "lm_head": T.BF16}[part]


def k_types(key):
    part = key.split(".")[-2]
    return {"embed_tokens": T.Q6_K, "q_proj": T.Q4_K, "k_proj": T.Q2_K, "v_proj": T.Q6_K, "o_proj": T.MXFP4, "gate_proj": T.Q4_K,
            "up_proj": T.Q5_K, "down_proj": T.Q3_K, "lm_head": T.Q5_K}[part]


VOCABULARY = len(SPECIAL) + 256 + len(MERGES)
make("gguf_llama", "llama", LlamaConfig(**SIZES, vocab_size=VOCABULARY, rms_norm_eps=1e-5, tie_word_embeddings=True),
     LlamaForCausalLM, mixed)
make("gguf_llama_k", "llama",
     LlamaConfig(**{**SIZES, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}, head_dim=32, vocab_size=61),
     LlamaForCausalLM, k_types, r=1)
# What Llama 3.1 and later have: a divisor for each frequency. transformers does not read it.
make("gguf_llama3", "llama", LlamaConfig(**SIZES, vocab_size=61), LlamaForCausalLM,
     lambda key: T.IQ4_NL if "proj" in key else T.Q8_0, checked=False, divisors=[1, 1, 1, 1.5, 2.25, 4, 8, 8],
     target_modules=["q_proj", "v_proj"])
make("gguf_qwen2", "qwen2", Qwen2Config(**SIZES, vocab_size=61), Qwen2ForCausalLM, mixed, target_modules=["k_proj", "down_proj"])
# transformers does not read the width of a head either.
make("gguf_qwen3", "qwen3", Qwen3Config(**SIZES, vocab_size=61, head_dim=32, tie_word_embeddings=True), Qwen3ForCausalLM,
     lambda key: T.Q8_0, checked=False, target_modules=["q_proj", "o_proj"])
