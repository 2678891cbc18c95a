#!/usr/bin/env python3
"""Train a small tokenizer of each kind that model families use and record what transformers makes of 400 texts: kinds/, kinds.json.

    python3 make_kinds.py

Needs tokenizers and transformers; versions are recorded in kinds.json. The seed is fixed. The training text and the texts are of
this script's own making. For every kind and text kinds.json has the ids without special tokens, what is added around them, and
the first digits of the SHA-256 of the decoded texts, special tokens kept and left out.

Since version 0.22 tokenizers decodes an added token with normalized=True to what the normalizer makes of it, before to its
content; with a normalizer that changes it (llama2, xlm) the texts with such a token have ids only.
"""
import hashlib, json, pathlib, random
import tokenizers, transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
WORDS = ("the cat and dog went to river saw fish house old small boat on water wide is one day two friends made fire near It's I'll we've don't "
         "def return for in range print x y 0 1 2 3 10 42 2026 3.14 été déjà naïve Straße señor 日本 東京 こんにちは 世界 你好 한국 שלום مرحبا привет мир").split()
PIECES = WORDS + [
    " ", "  ", "\n", "\n\n", "\t", " \n ", "\r\n", "...", "?!", ", ", ". ", "(a)", "[b]", "{c}", "==", "//", "/* z */", "    return x\n", "1234567", "٣٤٥", "½", "２０",
    "😀", "👩‍👩‍👧", "🇩🇪", "👍🏽", "e\u0301", "é", "a\u0323\u0302", "ﷺ", "ﬁ", "Ⅳ", "①", "Å", "\u212b", "ｱ", "カ\u3099", "ガ", "\u00a0", "\u2003", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u202e",
    "\u0000", "\u0007", "\u001b[0m", "\u0085", "\u2028", "𝒳", "𐍈", "\U000f0000", "\ue000", "\ufffd", "<0x41>", "▁", "▁▁the", "<s>", "</s>", "<pad>", "<|end|>", " <|end|> ",
    "[WORD]", "x[WORD]y", " [WORD] ", "[LEFT]", "  [LEFT]x", "[RIGHT]  x", "the [RIGHT]", "[norm]", "[NORM]", "Ｎorm", "I'LL", "'S", "ſ's", "don’t"]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|end|>"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def texts():
    rng = random.Random(20260307)
    out = ["", " ", "  ", "\n", *PIECES]
    while len(out) < 400:
        out.append("".join(rng.choice(PIECES) + rng.choice(("", " ", " ", " ")) for _ in range(rng.randint(2, 9))))
    return out


def corpus():
    rng = random.Random(7)
    return [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(300)]


def byte_level(normalizer, *before, template=None, **model):
    tok = Tokenizer(models.BPE(**model))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not before or isinstance(before[0], pre_tokenizers.Digits))])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=480, special_tokens=SPECIAL, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tok


def bytes_fallback(pre_tokenizer, normalizer, decoder):
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    special = SPECIAL + [f"<0x{i:02X}>" for i in range(256)]
    if pre_tokenizer:
        tok.pre_tokenizer = pre_tokenizer
    if normalizer:
        tok.normalizer = normalizer
    tok.decoder = decoders.Sequence(decoder)
    # Trained on words alone: without a split, merges would run over spaces.
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=560, special_tokens=special, show_progress=False))
    data, learned = json.loads(tok.to_str()), json.loads(trained.to_str())
    data["model"] = learned["model"]
    data["added_tokens"] = [t for t in learned["added_tokens"] if t["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(data))


def unigram(normalizer, scheme):
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tok.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tok.train_from_iterator(corpus(), trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False))
    return tok


def around(tok, before, after):
    special = [(t, tok.token_to_id(t)) for t in before + after]
    tok.post_processor = processors.TemplateProcessing(single=" ".join([*before, "$A", *after]), pair=" ".join([*before, "$A", *after, "$B"]), special_tokens=special)
    return tok


def kinds():
    split = lambda regex: pre_tokenizers.Split(Regex(regex), "isolated")
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    yield "gpt2", byte_level(None)
    yield "llama3", around(byte_level(None, split(LLAMA3), ignore_merges=True), ["<s>"], [])
    yield "qwen2", byte_level(normalizers.NFC(), split(QWEN2))
    yield "smollm2", byte_level(None, pre_tokenizers.Digits(individual_digits=True))
    yield "llama2", around(bytes_fallback(None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), spaces + [decoders.Strip(" ", 1, 0)]), ["<s>"], [])
    yield "mistral", around(bytes_fallback(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), None, spaces + [decoders.Strip(" ", 1, 0)]), ["<s>"], [])
    yield "gemma", around(bytes_fallback(pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"), spaces), ["<s>"], [])
    yield "t5", around(unigram(normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]), "always"), [], ["</s>"])
    yield "xlm", around(unigram(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Lowercase()]), "first"), ["<s>"], ["</s>"])


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def main():
    out = {"versions": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}, "texts": texts(), "kinds": {}}
    for name, tok in kinds():
        tok.add_tokens([AddedToken("[WORD]", single_word=True), AddedToken("[LEFT]", lstrip=True, normalized=False),
                        AddedToken("[RIGHT]", rstrip=True), AddedToken("[norm]", normalized=True)])
        folder = HERE / "kinds" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(tok.to_str(pretty=False) + "\n")
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                  # It has no say: the post-processor has.
                  "add_bos_token": name in ("gpt2", "t5"), "add_eos_token": name == "llama2", "clean_up_tokenization_spaces": False}
        (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
        loaded = transformers.AutoTokenizer.from_pretrained(folder)
        empty = loaded("")["input_ids"]
        before = [i for i in empty if i == loaded.bos_token_id]
        after = [i for i in empty if i == loaded.eos_token_id]
        normalized = [i for i, t in loaded.added_tokens_decoder.items() if t.normalized]
        cases = []
        for text in out["texts"]:
            ids = loaded(text, add_special_tokens=False)["input_ids"]
            assert loaded(text)["input_ids"] == before + ids + after, (name, text)
            changed = name in ("llama2", "xlm") and any(t in ids for t in normalized)
            cases.append([ids] if changed else [ids, digest(loaded.decode(ids)), digest(loaded.decode(ids, skip_special_tokens=True))])
        out["kinds"][name] = {"before": before, "after": after, "cases": cases}
    form = json.dumps(out, ensure_ascii=True, separators=(",", ":"))
    (HERE / "kinds.json").write_text(form.replace('{"before"', '\n{"before"') + "\n")
    print(len(out["texts"]), "texts,", len(out["kinds"]), "kinds,", len(form), "bytes")


main()
