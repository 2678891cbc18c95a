#!/usr/bin/env python3
"""Write small LoRA adapters with PEFT, PEFT's answers to target_modules questions, and config.json variants.

    python3 make_adapters.py

Needs torch, transformers and peft; versions and seed are recorded in the output. Writes adapters/, targets.json, configs/.
"""
import copy, json, pathlib, shutil, warnings
import peft, torch, transformers
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20260307
CONFIG = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

ADAPTERS = {
    "plain": (dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]), torch.float32),
    "rslora": (dict(r=2, lora_alpha=3, use_rslora=True, target_modules=ALL, lora_dropout=0.1), torch.float32),
    "patterns": (dict(r=2, lora_alpha=4, target_modules=ALL, rank_pattern={"q_proj": 3, r".*layers\.1\.mlp.*": 1},
                      alpha_pattern={"layers.2.self_attn.q_proj": 12, "o_proj": 1.5}), torch.float32),
    "regex": (dict(r=1, lora_alpha=1, target_modules=r".*layers\.(0|2)\.self_attn\.(q|o)_proj"), torch.float32),
    "all_linear": (dict(r=1, lora_alpha=2, target_modules="all-linear"), torch.float32),
    "layers": (dict(r=1, lora_alpha=2, target_modules=["down_proj", "k_proj"], layers_to_transform=[1]), torch.float32),
    "exclude": (dict(r=1, lora_alpha=2, target_modules=["up_proj", "q_proj"], exclude_modules=["layers.0.mlp.up_proj"]), torch.float32),
    "half": (dict(r=2, lora_alpha=4, target_modules=["q_proj"]), torch.float16),
    "bfloat": (dict(r=2, lora_alpha=4, target_modules=["q_proj"]), torch.bfloat16),
    "head": (dict(r=2, lora_alpha=4, target_modules=["q_proj", "lm_head"]), torch.float32),
}

TARGETS = [
    dict(target_modules=["q_proj"]),
    dict(target_modules=["self_attn.q_proj", "mlp.down_proj"]),
    dict(target_modules=["model.layers.1.self_attn.v_proj"]),
    dict(target_modules=["1.self_attn.v_proj", "lm_head"]),
    dict(target_modules=["proj"]),
    dict(target_modules=r".*\.(q|k)_proj"),
    dict(target_modules=r"(?:model\.)?layers\.\d+\.mlp\.(?P<which>gate|up)_proj"),
    dict(target_modules=r"model.layers.[0-1].self_attn.[qv]_proj"),
    dict(target_modules=r".*_proj"),
    dict(target_modules=r"model\.layers\.\d{1,2}\.(?!mlp).*o_proj"),
    dict(target_modules=r".*layers\.[^2]\..*down_proj"),
    dict(target_modules=r"(?i).*Q_PROJ"),
    dict(target_modules=r".*self_attn\.\w+_proj$"),
    dict(target_modules=r"q_proj"),
    dict(target_modules=["q_proj", "k_proj"], exclude_modules=r".*layers\.0\..*"),
    dict(target_modules=["q_proj", "k_proj"], exclude_modules=["k_proj"]),
    dict(target_modules=["q_proj"], layers_to_transform=[0, 2]),
    dict(target_modules=["q_proj"], layers_to_transform=1),
    dict(target_modules=["up_proj"], layers_to_transform=[2], layers_pattern="layers"),
    dict(target_modules=["up_proj"], layers_to_transform=[2], layers_pattern=["h", "layers"]),
    dict(target_modules=ALL, rank_pattern={"q_proj": 9, "layers.1.*": 5, r"mlp\.(up|gate)_proj": 7, "^model.layers.2.mlp.down_proj": 3}),
    dict(target_modules=ALL, alpha_pattern={r"self_attn\..*": 32, "proj": 5, r".*layers\.0\.mlp\.up_proj": 0.5}),
]


def model():
    torch.manual_seed(SEED)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).eval()


def adapters():
    shutil.rmtree(HERE / "adapters", ignore_errors=True)
    for name, (settings, dtype) in ADAPTERS.items():
        torch.manual_seed(SEED)
        config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **copy.deepcopy(settings))
        net = peft.get_peft_model(model(), config)
        folder = HERE / "adapters" / name
        # A targeted output head would bring a copy of the base's weight along.
        net.to(dtype).save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        written = json.loads((folder / "adapter_config.json").read_text())
        # A set in PEFT: sorted, so that the file does not change from run to run.
        if isinstance(written["target_modules"], list):
            written["target_modules"].sort()
        (folder / "adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True))
        expected = {}
        for path, module in net.base_model.model.named_modules():
            if hasattr(module, "lora_A"):
                a, b = module.lora_A["default"].weight.float(), module.lora_B["default"].weight.float()
                expected[path] = {"r": module.r["default"], "alpha": module.lora_alpha["default"], "scaling": module.scaling["default"],
                                  "a": [a.shape[0], a.shape[1], a[0, 0].item(), a[-1, -1].item(), a.double().sum().item()],
                                  "b": [b.shape[0], b.shape[1], b[0, 0].item(), b[-1, -1].item(), b.double().sum().item()]}
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def targets():
    net = model()
    cases = []
    for settings in TARGETS:
        config = peft.LoraConfig(r=8, lora_alpha=16, **copy.deepcopy(settings))
        matched = {}
        for name, _ in net.named_modules():
            found = name and check_target_module_exists(config, name)
            if found and type(found).__name__ != "_ExcludedModule":
                matched[name] = [config.rank_pattern.get(get_pattern_key(config.rank_pattern, name), config.r),
                                 config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, name), config.lora_alpha)]
        cases.append({"settings": settings, "matched": matched})
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    out = {"versions": versions, "seed": SEED, "config": CONFIG, "modules": [n for n, _ in net.named_modules() if n], "cases": cases}
    (HERE / "targets.json").write_text(json.dumps(out, indent=1) + "\n")


def configs():
    folder = HERE / "configs"
    shutil.rmtree(folder, ignore_errors=True)
    llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192}
    small = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    variants = {
        "llama": transformers.LlamaConfig(**small, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, eos_token_id=[2, 5]),
        "llama3_rope": transformers.LlamaConfig(**small, rope_parameters=llama3, head_dim=8),
        "mistral": transformers.MistralConfig(**small, sliding_window=32),
        "mistral_full": transformers.MistralConfig(**small, sliding_window=None, head_dim=6),
        "qwen2": transformers.Qwen2Config(**small),
        "qwen2_sliding": transformers.Qwen2Config(**small, use_sliding_window=True, sliding_window=16, max_window_layers=1),
        "qwen3": transformers.Qwen3Config(**small, head_dim=8),
        "qwen3_bias": transformers.Qwen3Config(**small, head_dim=8, attention_bias=True, tie_word_embeddings=True),
    }
    for name, config in variants.items():
        torch.manual_seed(SEED)
        net = transformers.AutoModelForCausalLM.from_config(config)
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        tensors = {k: list(v.shape) for k, v in net.state_dict().items() if k not in tied}
        config.architectures = [type(net).__name__]
        config.dtype = "bfloat16"
        config.save_pretrained(folder / name)
        written = json.loads((folder / name / "config.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps({"config": written, "tensors": tensors,
            "modules": {n: type(x).__name__ for n, x in net.named_modules() if n}}, indent=1) + "\n")
        shutil.rmtree(folder / name)


warnings.simplefilter("ignore")
adapters()
targets()
configs()
