#!/usr/bin/env python3
"""Adapters cross both ways: trained by lora4j and loaded by PEFT, made by PEFT and loaded by lora4j; the logits must agree.

    python3 bench/interop/peft_exchange.py [--model test-data/tiny-llama]

For r, alpha, rsLoRA, rank_pattern, alpha_pattern and subsets of modules: ‖ours − PEFT's‖ / ‖PEFT's‖ of the last position's logits ≤ 1e-4.
Needs torch 2.15, transformers 5.23, peft 0.21 (other versions were not tried).
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


def theirs(model, adapter, ids):
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), adapter).eval()
    with torch.no_grad():
        return peft(input_ids=torch.tensor([ids])).logits[0, -1]


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
            made = work / "peft"
            get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
                           LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **config)).save_pretrained(made)
            lora4j("train", "--model", model, "--data", work / "data.jsonl", "--output_dir", work / "ours", "--overwrite_output_dir", "--max_steps", 4,
                   "--learning_rate", "1e-2", "--lora_dropout", 0, *flags(config))
            for direction, adapter in (("PEFT's in lora4j", made), ("lora4j's in PEFT", work / "ours")):
                ids, found = ours(model, adapter)
                expected = theirs(model, adapter, ids)
                error = ((found - expected).norm() / expected.norm()).item()
                worst = max(worst, error)
                print(f"{case:30} {direction:18} {error:.1e}")
    sys.exit(0 if worst <= 1e-4 else f"logits differ by {worst:.1e}, expected at most 1e-4")


if __name__ == "__main__":
    main()
