#!/usr/bin/env python3
"""Writes a Llama model of Hugging Face's layout as GGUF, for llama.cpp: the same weights, no tokenizer.

    python3 gguf_model.py MODEL_FOLDER OUT.gguf f32|bf16|f16

Needs gguf, numpy, safetensors and torch. Norms are stored in fp32, as llama.cpp wants them.
"""
import json, pathlib, sys

import gguf, torch
from safetensors.torch import load_file

BLOCK = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TYPES = {"f32": (torch.float32, gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32), "f16": (torch.float16, gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
         "bf16": (torch.bfloat16, gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16)}


def gguf_name(name):
    module = name.removesuffix(".weight")
    if module in MODEL:
        return f"{MODEL[module]}.weight"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{BLOCK[part]}.weight"


def pairs(w, heads):
    """Hugging Face stores the rotary pairs of Q and K as first halves, then second halves; GGUF has them side by side."""
    rows, columns = w.shape
    return w.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(folder, out, name):
    config = json.loads((folder / "config.json").read_text())
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    dtype, kind, file_type = TYPES[name]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(rope)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(file_type)
    writer.add_tokenizer_model("no_vocab")
    for tensor, values in load_file(folder / "model.safetensors").items():
        if tensor.endswith(("q_proj.weight", "k_proj.weight")):
            values = pairs(values, heads if "q_proj" in tensor else kv)
        if values.dim() == 1:
            writer.add_tensor(gguf_name(tensor), values.float().numpy())
        elif name == "bf16":
            writer.add_tensor(gguf_name(tensor), values.to(dtype).contiguous().view(torch.uint16).numpy().view("uint8"), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(tensor), values.to(dtype).contiguous().numpy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3])
