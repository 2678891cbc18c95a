#!/usr/bin/env python3
"""Write the inputs that fuzzing begins with: valid files as small as they can be, one folder for each test of ReaderFuzzTest.

    python3 make_seeds.py

Needs gguf, safetensors and numpy. Files in the folders whose names are hashes were found by Jazzer and are not made here.
"""
import json, pathlib, struct
import gguf, numpy as np
from gguf import GGMLQuantizationType as Type, GGUFValueType as Value
from safetensors.numpy import save

HERE = pathlib.Path(__file__).resolve().parent
SEED = 11
rng = np.random.default_rng(SEED)


def put(target, name, data):
    folder = HERE / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else (json.dumps(data, ensure_ascii=False) + "\n").encode())


# ---- safetensors

put("safetensors", "types.safetensors", save({
    "f32": rng.standard_normal((2, 3)).astype(np.float32), "f16": np.ones((1, 2, 1, 2), np.float16), "u8": np.arange(3, dtype=np.uint8),
    "i64": np.zeros((0, 4), np.int64), "scalar": np.array(2.5, np.float32), 'odd "é😀\n': np.ones(1, bool)}, {"format": "pt", "k": "ü"}))
header = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F4","shape":[4],"data_offsets":[2,4]}}'
put("safetensors", "small.safetensors", struct.pack("<Q", len(header)) + header + b"\1\2\3\4")

# ---- GGUF


def write(name, architecture, fill):
    path = HERE / "gguf" / name
    path.parent.mkdir(exist_ok=True)
    w = gguf.GGUFWriter(path, architecture)
    fill(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def every_type(w):
    for value, kind in [(255, "UINT8"), (-128, "INT8"), (65535, "UINT16"), (-2, "INT16"), (7, "UINT32"), (-7, "INT32"), (1.5, "FLOAT32"),
                        (True, "BOOL"), ("grüße", "STRING"), (2**63 + 1, "UINT64"), (-(2**63), "INT64"), (0.1, "FLOAT64")]:
        w.add_key_value(f"k.{kind}", value, getattr(Value, kind))
        w.add_key_value(f"a.{kind}", [value] * 3, Value.ARRAY, Value[kind])
    w.add_tensor("f32", np.ones((2, 3), np.float32))
    for kind in (Type.Q4_0, Type.Q8_0):
        w.add_tensor(kind.name, gguf.quantize(rng.standard_normal((1, 32)).astype(np.float32), kind), raw_dtype=kind)


def model(w, bpe, bias, norms):
    """One block of width 32 with two heads; a vocabulary of ten."""
    w.add_block_count(1)
    w.add_context_length(16)
    w.add_embedding_length(32)
    w.add_feed_forward_length(32)
    w.add_head_count(2)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    if bpe:
        tokens = ["<s>", "</s>", "a", "b", "c", "Ġ", "ab", "abc", "Ċ", "<|im_end|>"]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("smollm")
        w.add_token_merges(["a b", "ab c"])
        types = [3, 3, 1, 1, 1, 1, 1, 1, 1, 4]
    else:
        tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "ab", "▁ab", "▁a"]
        w.add_tokenizer_model("llama")
        w.add_token_scores([0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0])
        types = [2, 3, 3, 6, 1, 1, 1, 1, 1, 1]
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(True)
    w.add_chat_template("{{ bos_token }}{{ messages[0]['content'] }}")

    def matrix(name, rows, kind):
        w.add_tensor(name, gguf.quantize(rng.standard_normal((rows, 32)).astype(np.float32), kind), raw_dtype=kind)

    matrix("token_embd.weight", 10, Type.Q8_0)
    w.add_tensor("output_norm.weight", np.ones(32, np.float32))
    if not bpe:
        matrix("output.weight", 10, Type.Q4_1)
    for name, rows in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32), ("ffn_gate", 32), ("ffn_up", 32), ("ffn_down", 32)):
        matrix(f"blk.0.{name}.weight", rows, Type.Q4_0)
        if bias and name in ("attn_q", "attn_k", "attn_v"):
            w.add_tensor(f"blk.0.{name}.bias", np.zeros(rows, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.0.{name}.weight", np.ones(32, np.float32))
    if norms:
        for name in ("attn_q_norm", "attn_k_norm"):
            w.add_tensor(f"blk.0.{name}.weight", np.ones(16, np.float32))
    if bpe and not bias:
        w.add_tensor("rope_freqs.weight", np.ones(8, np.float32))


write("types.gguf", "llama", every_type)
write("llama.gguf", "llama", lambda w: model(w, True, False, False))
write("qwen2.gguf", "qwen2", lambda w: model(w, True, True, False))
write("qwen3.gguf", "qwen3", lambda w: model(w, False, False, True))
unknown = b"GGUF" + struct.pack("<IQQ", 2, 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 4, 99, 0)
put("gguf", "unknown.gguf", unknown + bytes(-len(unknown) % 32 + 8))

# ---- one quantized layer: numbers of the method, the shape and the group size, then the file (ReaderFuzzTest.quantized)


def quantized(name, method, shape, group, tensors):
    put("quantized", name, bytes([method, shape, group]) + save({f"m.{k}": np.ascontiguousarray(v) for k, v in tensors.items()}))


def integers(dtype, *shape):
    return rng.integers(-100, 100, shape).astype(dtype)


def floats(dtype, *shape):
    return (rng.standard_normal(shape) * 0.01).astype(dtype)


def four_bits(kind, nested):
    values, blocks = 16 * 64, 16
    state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": [16, 64]}
    tensors = {"weight": integers(np.uint8, values // 2, 1), "weight.quant_map": floats(np.float32, 16),
               "weight.absmax": integers(np.uint8, blocks) if nested else floats(np.float32, blocks)}
    if nested:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.03}
        tensors |= {"weight.nested_absmax": floats(np.float32, 1), "weight.nested_quant_map": floats(np.float32, 256)}
    tensors[f"weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return tensors


quantized("nf4", 0, 0, 0, four_bits("nf4", False))
quantized("fp4_nested", 0, 0, 0, four_bits("fp4", True))
quantized("int8", 1, 3, 0, {"weight": integers(np.int8, 5, 33), "SCB": floats(np.float32, 5), "weight_format": np.array(0, np.uint8)})
for name, method, index in (("gptq", 2, False), ("gptq_v2", 3, True)):
    parts = {"qweight": integers(np.int32, 8, 16), "qzeros": integers(np.int32, 4, 2), "scales": floats(np.float16, 4, 16)}
    if index:
        parts["g_idx"] = rng.permutation(np.repeat(np.arange(4, dtype=np.int32), 16))
    quantized(name, method, 0, 1, parts | {"bias": np.zeros(16, np.float16)})
quantized("awq", 4, 0, 1, {"qweight": integers(np.int32, 64, 2), "qzeros": integers(np.int32, 4, 2), "scales": floats(np.float16, 4, 16)})
# numpy has no FP8: the header says so of bytes.
for name, scale in (("tensor", (1,)), ("row", (5, 1)), ("blocks", (1, 1))):
    data = save({"m.weight": rng.integers(0, 120, (5, 33)).astype(np.uint8), "m.weight_scale_inv": floats(np.float32, *scale)})
    length = struct.unpack("<Q", data[:8])[0]
    head = data[8 : 8 + length].rstrip().replace(b'"U8"', b'"F8_E4M3"')
    put("quantized", f"fp8_{name}", bytes([5, 3, 0]) + struct.pack("<Q", len(head)) + head + data[8 + length :])

# ---- JSON

put("shardIndex", "index.json", {"metadata": {"total_size": 6}, "weight_map": {"one.weight": "one.safetensors", "two.weight": "two.safetensors"}})
base = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5}
put("modelConfig", "llama.json", base | {"architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "rope_scaling": {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    "eos_token_id": [1, 2], "torch_dtype": "bfloat16", "tie_word_embeddings": True})
put("modelConfig", "mistral.json", base | {"architectures": ["MistralForCausalLM"], "head_dim": 8, "sliding_window": 16, "quantization_config": {
    "quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True, "checkpoint_format": "gptq_v2", "modules_in_block_to_quantize": [["self_attn.q_proj"]]}})
put("modelConfig", "qwen2.json", base | {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1,
    "layer_types": ["full_attention", "sliding_attention"], "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": ["lm_head", r"model\.layers\.\d+"]}})
put("modelConfig", "qwen3.json", base | {"architectures": ["Qwen3ForCausalLM"], "head_dim": 8, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6},
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}})
adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "bias": "none", "base_model_name_or_path": "org/name"}
put("adapterConfig", "names.json", adapter | {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.v_proj"], "layers_to_transform": [0, 1],
    "layers_pattern": "layers", "rank_pattern": {"q_proj": 2, r"layers\.(0|1)\.": 3}, "alpha_pattern": {"v_proj": 1.5}, "use_rslora": True})
put("adapterConfig", "regex.json", adapter | {"target_modules": r"(?P<m>model)\.layers\.[0-9]{1,2}\.(?:self_attn|mlp)\.(q|k|up)_proj$", "modules_to_save": None})
put("adapterConfig", "all.json", adapter | {"target_modules": "all-linear", "init_lora_weights": "gaussian"})
put("tokenizer", "bpe.json", {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [
    {"id": 8, "content": "<|im_end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
    "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
    "byte_fallback": False, "ignore_merges": False, "vocab": {"h": 0, "e": 1, "l": 2, "o": 3, "he": 4, "ll": 5, "Ġ": 6, "hell": 7},
    "merges": [["h", "e"], ["l", "l"], ["he", "ll"]]}})
total = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
print(total, "bytes")
