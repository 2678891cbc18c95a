#!/usr/bin/env python3
"""Adapters cross both ways: trained by lora4j and loaded by PEFT, made by PEFT and loaded by lora4j; the logits must agree.

    python3 bench/interop/peft_exchange.py [--model test-data/tiny-llama]

For r, alpha, rsLoRA, rank_pattern, alpha_pattern, subsets of modules and PiSSA: ‖ours − PEFT's‖ / ‖PEFT's‖ of the last position's logits ≤ 1e-4.
With LoftQ, and PiSSA on a quantized base, lora4j's adapter is loaded on the base that lora4j writes beside it.
Needs torch 2.15, transformers 5.23, peft 0.21, bitsandbytes 0.50 (other versions were not tried).
"""
import argparse, json, pathlib, subprocess, sys, tempfile
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "The little dog found a red ball in the garden."
CASES = {
    "all linears": dict(r=8, lora_alpha=16, target_modules="all-linear"),
    "rslora": dict(r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]),
    "rank_pattern, alpha_pattern": dict(r=8, lora_alpha=16, target_modules="all-linear", rank_pattern={"q_proj": 3, "layers.1.mlp.up_proj": 5},
                                        alpha_pattern={"v_proj": 7}),
    "pissa": dict(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=["q_proj", "v_proj", "down_proj"]),
    "pissa, rslora": dict(r=4, lora_alpha=3, use_rslora=True, init_lora_weights="pissa_niter_8", target_modules=["k_proj", "up_proj"]),
    "pissa, NF4": dict(r=4, lora_alpha=8, init_lora_weights="pissa", load_in_4bit=True, target_modules="all-linear"),
    "loftq": dict(r=4, lora_alpha=8, init_lora_weights="loftq", loftq_iter=3, load_in_4bit=True, target_modules="all-linear"),
    "loftq, nested FP4": dict(r=4, lora_alpha=4, init_lora_weights="loftq", load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True,
                              target_modules=["q_proj", "o_proj"]),
    "subset, regex": dict(r=2, lora_alpha=5, target_modules=r".*layers\.[02]\.(self_attn\.o_proj|mlp\.gate_proj)"),
}


def lora4j(*args):
    done = subprocess.run([ROOT / "lora4j", *map(str, args), "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def ours(model, adapter):
    answer = lora4j("generate", "--model", model, "--adapter", adapter, "--prompt", PROMPT, "--no_chat_template", "--max_new_tokens", 1, "--logits")
    return answer["prompt_token_ids"], torch.tensor(answer["logits"]).flatten()


def load(model):
    """In float32 throughout; bitsandbytes would compute in the type that the base had before, or on some CPUs in bfloat16."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for module in loaded.modules():
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype = module.weight.quant_state.dtype = torch.float32
            module.support_avx512bf16_for_cpu = False
    for p in loaded.parameters():
        if p.dtype == torch.bfloat16:
            p.data = p.data.float()
    return loaded


def theirs(model, adapter, ids):
    peft = PeftModel.from_pretrained(load(model), adapter).eval()
    with torch.no_grad():
        return peft(input_ids=torch.tensor([ids])).logits[0, -1]


def make(model, config, folder):
    """An adapter of PEFT's with random numbers; one that began with PiSSA is converted for the base as it was."""
    begin = config.get("init_lora_weights", False)
    peft = get_peft_model(load(model), LoraConfig(task_type="CAUSAL_LM", **{**config, "init_lora_weights": begin}))
    if not begin:
        peft.save_pretrained(folder)
        return
    peft.peft_config["default"].init_lora_weights = True
    peft.save_pretrained(folder / "start")
    peft.peft_config["default"].init_lora_weights = begin
    with torch.no_grad():
        for p in peft.parameters():
            if p.requires_grad:
                p += 0.02 * torch.randn_like(p)
    peft.save_pretrained(folder, path_initial_model_for_weight_conversion=str(folder / "start"))


def flags(config):
    for name, value in config.items():
        name = {"r": "lora_r", "target_modules": "lora_target_modules"}.get(name, name)
        yield from (f"--{name}", json.dumps(value) if isinstance(value, dict) else ",".join(value) if isinstance(value, list) else str(value).lower()
                    if isinstance(value, bool) else str(value))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "test-data/tiny-llama")
    model, worst = parser.parse_args().model, 0.0
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        (work / "data.jsonl").write_text("".join(json.dumps({"text": f"Mia has {i} apples and a blue hat."}) + "\n" for i in range(16)))
        for case, config in CASES.items():
            torch.manual_seed(3)
            quantized = "load_in_4bit" in config
            lora4j("train", "--model", model, "--data", work / "data.jsonl", "--output_dir", work / "ours", "--overwrite_output_dir", "--max_steps", 4,
                   "--learning_rate", "1e-2", "--lora_dropout", 0, *flags(config))
            cases = [("lora4j's in PEFT", work / "ours/base_model" if quantized else model, work / "ours")]
            if not quantized:
                make(model, config, work / case)
                cases.append(("PEFT's in lora4j", model, work / case))
            for direction, base, adapter in cases:
                ids, found = ours(base, adapter)
                expected = theirs(base, adapter, ids)
                error = ((found - expected).norm() / expected.norm()).item()
                worst = max(worst, error)
                print(f"{case:30} {direction:18} {error:.1e}")
    sys.exit(0 if worst <= 1e-4 else f"logits differ by {worst:.1e}, expected at most 1e-4")


if __name__ == "__main__":
    main()
