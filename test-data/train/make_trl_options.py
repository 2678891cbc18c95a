"""Writes trl_options.json: the options of `trl sft` and the fields of PEFT's LoraConfig, each with its default.

The tests ask lora4j about every one of them: it is honoured, it changes nothing, or it is refused by name.
Needs trl, transformers, peft and datasets; nothing is random. Run it in this folder.
"""

import dataclasses
import json

import peft
import transformers
import trl
from peft import LoraConfig
from trl import ModelConfig, ScriptArguments, SFTConfig


def plain(value):
    return value.value if hasattr(value, "value") else value


def default(field):
    if field.default is not dataclasses.MISSING:
        return plain(field.default)
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return dataclasses.asdict(made) if dataclasses.is_dataclass(made) else made
    return None


def fields(cls):
    return {f.name: default(f) for f in sorted(dataclasses.fields(cls), key=lambda f: f.name) if f.init}


with open("trl_options.json", "w") as out:
    json.dump(
        {
            "versions": {m.__name__: m.__version__ for m in (trl, transformers, peft)},
            "sft_config": fields(SFTConfig),
            "model_config": fields(ModelConfig),
            "script_arguments": fields(ScriptArguments),
            "lora_config": fields(LoraConfig),
        },
        out,
        indent=1,
    )
    out.write("\n")
