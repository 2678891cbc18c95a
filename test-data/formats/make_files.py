#!/usr/bin/env python3
"""Write small checkpoints with the formats' own libraries: files/*.safetensors, files/small.gguf, files/python_json.json.

    python3 make_files.py

Needs torch, safetensors, gguf and numpy; versions and seed are recorded in files/versions.json.
"""
import json, pathlib, random, struct
import gguf, numpy, safetensors, torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent / "files"
SEED = 20260307


def tensors():
    g = torch.Generator().manual_seed(SEED)
    out = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        out[f"z.{dtype}".replace("torch.", "")] = torch.randn(3, 5, generator=g).to(dtype)
        out[f"a.{dtype}".replace("torch.", "")] = torch.randn(2, 1, 2, generator=g).to(dtype)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
        out[f"i.{dtype}".replace("torch.", "")] = torch.randint(0, 2, (7,), generator=g).to(dtype)
    out["scalar"] = torch.tensor(2.5)
    out["empty"] = torch.zeros(0, 4)
    out['odd "name" é 😀 \n'] = torch.ones(1)
    return out


def write_gguf(path):
    w = gguf.GGUFWriter(path, "llama")
    for name, value, kind in [("u8", 255, "UINT8"), ("i8", -128, "INT8"), ("u16", 65535, "UINT16"), ("i16", -32768, "INT16"),
                              ("u32", 4294967295, "UINT32"), ("i32", -2147483648, "INT32"), ("f32", 1.5, "FLOAT32"),
                              ("u64", 2**63 + 1, "UINT64"), ("i64", -(2**63), "INT64"), ("f64", 0.1, "FLOAT64"),
                              ("yes", True, "BOOL"), ("text", "grüße 😀", "STRING")]:
        w.add_key_value(f"test.{name}", value, getattr(gguf.GGUFValueType, kind))
    w.add_array("test.words", [f"w{i}" for i in range(20)])
    w.add_array("test.numbers", [1, -2, 3])
    rng = numpy.random.default_rng(SEED)
    w.add_tensor("f32", rng.standard_normal((2, 3), dtype=numpy.float32))
    w.add_tensor("f16", rng.standard_normal((4, 2), dtype=numpy.float32).astype(numpy.float16))
    bf16 = (rng.standard_normal((3, 2), dtype=numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)
    w.add_tensor("bf16", bf16.view(numpy.uint8).reshape(3, 4), raw_dtype=gguf.GGMLQuantizationType.BF16)
    q = rng.standard_normal((2, 64), dtype=numpy.float32)
    w.add_tensor("q4_0", gguf.quantize(q, gguf.GGMLQuantizationType.Q4_0), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def python_json():
    rng = random.Random(SEED)
    floats = [0.0, -0.0, 1.0, 0.1, 1e-4, 1e-5, 9.999e-5, 1e15, 1e16, 123456789012345680.0, 1.5e300, 5e-324, 2.0**-1074, 1.7976931348623157e308, 100.0, 1e22, 1e23]
    floats += [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(400)]
    floats = [f for f in floats if f == f and abs(f) != float("inf")]
    value = {"b": [1, 2.0, None, True, {"x": []}], "a": {}, "é": "ü😀\u2028\"\\\n\t\x00\x1f\x7f", "c": [[], [[1]]]}
    return {"floats": [[struct.pack(">d", f).hex(), repr(f)] for f in floats], "value": json.dumps(value),
            "pretty": json.dumps(value, indent=2, sort_keys=True), "compact": json.dumps(value, ensure_ascii=False, separators=(",", ":"))}


HERE.mkdir(exist_ok=True)
save_file(tensors(), HERE / "all_types.safetensors", metadata={"format": "pt"})
write_gguf(HERE / "small.gguf")
(HERE / "python_json.json").write_text(json.dumps(python_json(), indent=1) + "\n")
versions = {"torch": torch.__version__, "safetensors": safetensors.__version__, "numpy": numpy.__version__, "seed": SEED}
(HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
