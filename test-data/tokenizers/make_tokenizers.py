#!/usr/bin/env python3
"""Train two small tokenizers and record what transformers makes of some texts with them: bytes/, spaces/, golden.json.

    python3 make_tokenizers.py

Needs tokenizers and transformers; versions are recorded in golden.json. No randomness.

bytes/   byte-level BPE whose offsets trim spaces, as GPT-2's does; ChatML tokens; no post-processor of its own
spaces/  BPE with Metaspace and byte fallback, as Llama 2's; BOS added by tokenizer.json; transformers 5 does not heed add_bos_token
"""
import json, pathlib
import tokenizers, transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
# Words enough for merges to exist; nothing quoted.
CORPUS = ["the cat and the dog went to the river and the cat saw the fish in the river"] * 3 + [
    "A small boat on the water. The boat is small, the water is wide.", "One day, two friends made a fire near the old house.",
    "日本 日本 日本", "été été déjà", "say hello, say goodbye; hello hello world", "1 2 3 10 20 30 2026", "user assistant system\n\n"]
TEXTS = ["hello world", "  two  spaces ", "日本 is 日本", "👩‍👩‍👧 and 🇩🇪", "déjà vu\n\n\tend", "", " ", "the<|im_end|>cat", "x\u0000y\u2028z", "𝒳𝒴 the cat",
         "<|im_start|>user\nhello<|im_end|>\n", "unk ☃ snow", "a\u0301 combining", "ﷺ ligature", "\n\n\n", "The boat is small, the water is wide."]


def save(name, tok, config):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def byte_level():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=True)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    # What must be switched off: a tokenizer file may bring truncation and padding.
    tok.enable_truncation(8)
    tok.enable_padding(length=12)
    template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    save("bytes", tok, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
                        "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "model_max_length": 512, "chat_template": template})


def metaspace():
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tok.train_from_iterator([c.replace(" ", "▁") for c in CORPUS], trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False))
    data = json.loads(tok.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in ("<unk>", "<s>", "</s>")]
    tok = Tokenizer.from_str(json.dumps(data))
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    save("spaces", tok, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_eos_token": True, "unk_token": "<unk>",
                         "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True},
                         "eos_token": "</s>", "pad_token": None,
                         "chat_template": [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"}]})


def units(text, index):
    return len(text[:index].encode("utf-16-le")) // 2


def golden():
    out = {"versions": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}, "cases": []}
    for name in ("bytes", "spaces"):
        tok = transformers.AutoTokenizer.from_pretrained(HERE / name)
        tok.backend_tokenizer.no_truncation()
        tok.backend_tokenizer.no_padding()
        for text in TEXTS:
            for special in (False, True):
                e = tok(text, add_special_tokens=special, return_offsets_mapping=True)
                offsets = [[units(text, a), units(text, b)] for a, b in e["offset_mapping"]]
                out["cases"].append({"tokenizer": name, "text": text, "special": special, "ids": e["input_ids"], "offsets": offsets,
                                     "decoded": tok.decode(e["input_ids"], skip_special_tokens=False, clean_up_tokenization_spaces=False),
                                     "plain": tok.decode(e["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False)})
    (HERE / "golden.json").write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")).replace('{"tokenizer"', '\n{"tokenizer"') + "\n")


byte_level()
metaspace()
golden()
