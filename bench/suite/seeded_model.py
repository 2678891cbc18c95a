#!/usr/bin/env python3
"""Writes a checkpoint of SmolLM2-135M's shape with seeded weights, the same bytes on every machine: fp32, 538 MB, no tokenizer.

    python3 seeded_model.py FOLDER

Needs numpy alone. Weights are uniform of standard deviation 0.04, norms are one: numbers of usual size, text of no meaning.
"""
import json, pathlib, struct, sys

import numpy

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY = 576, 1536, 30, 9, 3, 64, 49152
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER,
          "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "max_position_embeddings": 8192,
          "rms_norm_eps": 1e-5, "rope_theta": 1e5, "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1,
          "pad_token_id": 2, "torch_dtype": "float32"}


def shapes():
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", (HIDDEN,)
        yield name + "self_attn.q_proj.weight", (HEADS * HEAD, HIDDEN)
        yield name + "self_attn.k_proj.weight", (KV_HEADS * HEAD, HIDDEN)
        yield name + "self_attn.v_proj.weight", (KV_HEADS * HEAD, HIDDEN)
        yield name + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD)
        yield name + "post_attention_layernorm.weight", (HIDDEN,)
        yield name + "mlp.gate_proj.weight", (INNER, HIDDEN)
        yield name + "mlp.up_proj.weight", (INNER, HIDDEN)
        yield name + "mlp.down_proj.weight", (HIDDEN, INNER)
    yield "model.norm.weight", (HIDDEN,)


def values(generator, shape):
    """16 random bits a weight: no function of a library's that could change between releases."""
    if len(shape) == 1:
        return numpy.ones(shape, numpy.float32)
    bits = generator.integers(0, 1 << 16, shape, dtype=numpy.uint16)
    return (bits.astype(numpy.float32) - 32767.5) * numpy.float32(0.07 / 32768)


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes():
        size = 4 * int(numpy.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = numpy.random.Generator(numpy.random.PCG64(19))
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shapes():
            out.write(values(generator, shape).tobytes())


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
