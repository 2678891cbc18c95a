"""What the owners' libraries make of tiny-llama's weights: the SHA-256 of every quantized tensor.

Writes conversion.json beside itself. bitsandbytes quantizes the linear layers (NF4 and FP4 in plain blocks of 64, LLM.int8); the gguf
package quantizes every matrix (Q4_0, Q4_1, Q5_0, Q8_0), the rows of query and key projections in llama.cpp's order, which is computed here
from its converter's description. Keys are Hugging Face's names for bitsandbytes and GGUF's for gguf.

Run: python make_conversion.py (torch, bitsandbytes, gguf, numpy, safetensors)
"""
import hashlib
import json
import pathlib

import bitsandbytes
import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent / "tiny-llama"
config = json.loads((MODEL / "config.json").read_text())
weights = load_file(MODEL / "model.safetensors")
BLOCK_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
               "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
               "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def sha(tensor):
    data = tensor.contiguous().numpy() if isinstance(tensor, torch.Tensor) else np.ascontiguousarray(tensor)
    return hashlib.sha256(data.tobytes()).hexdigest()


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    if module.startswith("model.layers."):
        layer, part = module[len("model.layers."):].split(".", 1)
        return f"blk.{layer}.{BLOCK_NAMES[part]}.{kind}"
    return {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}[module] + "." + kind


def interleaved(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


result = {"versions": {"bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__},
          "nf4": {}, "fp4": {}, "int8": {}, "q4_0": {}, "q4_1": {}, "q5_0": {}, "q8_0": {}, "gguf_f32": {}}
for name, weight in sorted(weights.items()):
    w = weight.float()
    if name.endswith("_proj.weight"):
        for kind in ("nf4", "fp4"):
            packed, state = bnb.quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=False)
            result[kind][name] = sha(packed)
            result[kind][name + ".absmax"] = sha(state.absmax)
            result[kind][name + ".quant_map"] = sha(state.code)
            packed_state = state.as_dict(packed=True)["quant_state.bitsandbytes__" + kind]
            # The weight came as float32 here and is bfloat16 in the model.
            result[kind][name + ".quant_state"] = bytes(packed_state.tolist()).decode().replace("float32", "bfloat16")
        codes, scb, _ = bnb.int8_vectorwise_quant(w.half().float())
        result["int8"][name] = sha(codes)
        result["int8"][name.removesuffix("weight") + "SCB"] = sha(scb)
    array = w.numpy()
    if "q_proj" in name or "k_proj" in name:
        array = interleaved(array, config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
    result["gguf_f32"][gguf_name(name)] = sha(array)
    if array.ndim == 2:
        for kind in (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q8_0):
            result[kind.name.lower()][gguf_name(name)] = sha(gguf.quants.quantize(array, kind))
(HERE / "conversion.json").write_text(json.dumps(result, indent=1) + "\n")
