#!/usr/bin/env python3
"""Render the templates that real_templates.py gets with transformers and write real_templates.json.

    python3 make_real_templates.py              render everything, get the templates first where they are not there
    python3 make_real_templates.py NAME CASE    show one rendering

Needs transformers and jinja2; the versions used are recorded in the output. No randomness; the clock is fixed. The texts
themselves are long and carry the words of the templates, so that only the first 12 digits of their SHA-256 are recorded.
"""
import datetime, hashlib, json, pathlib, sys
import jinja2, transformers
from transformers.utils import chat_template_utils as utils
import real_masks, real_templates
from real_conversations import CONVERSATIONS

NOW = datetime.datetime(2026, 3, 7, 14, 5, 9)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


utils.datetime = FixedClock


def render(template, conversation, messages, prompt, masks=False):
    """Text and, if asked for, the spans of the generation blocks; or the exception."""
    variables = dict(conversation.get("variables", {}))
    try:
        texts, spans = utils.render_jinja_template(
            [messages], tools=variables.pop("tools", None), documents=variables.pop("documents", None), chat_template=template,
            add_generation_prompt=prompt, return_assistant_tokens_mask=masks, **TOKENS, **variables)
    except Exception as e:
        return None, e
    return texts[0], spans[0] if masks else None


def outcome(text, error):
    """The first digits of the text's SHA-256; or ! and what raise_exception said, or nothing where Python itself refused."""
    if text is not None:
        return hashlib.sha256(text.encode()).hexdigest()[:12]
    return "!" + (str(error) if type(error) is jinja2.exceptions.TemplateError else "")


def case(source, name, template, conversation):
    """Outcome without and with generation prompt, and where they are known for sure, the spans of the first."""
    messages = conversation["messages"]
    text, error = render(template, conversation, messages, False)
    result = [outcome(text, error), outcome(*render(template, conversation, messages, True))]
    spans = None if text is None else real_masks.spans(source, name, template, conversation, text, render)
    return result if spans is None else result + [spans]


def main():
    known = {}
    if real_templates.VECTORS.exists():
        for t in json.loads(real_templates.VECTORS.read_text())["templates"]:
            known.setdefault(t["source"], {})[t["name"]] = t["sha256"]
    real_templates.fetch(real_templates.FOLDER, known)
    found = []
    for source, version, *_ in real_templates.SOURCES:
        for path in sorted((real_templates.FOLDER / source).glob("*.jinja")):
            template = path.read_text()
            if sys.argv[1:2] == [path.stem]:
                conversation = CONVERSATIONS[sys.argv[2]]
                for prompt in (False, True):
                    print(repr(render(template, conversation, conversation["messages"], prompt)))
            found.append({
                "source": source, "version": version, "name": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "cases": [] if sys.argv[1:] else [case(source, path.stem, template, conversation) for conversation in CONVERSATIONS.values()]})
    if sys.argv[1:]:
        return
    out = {"versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__}, "now": NOW.isoformat(), "tokens": TOKENS,
           "conversations": CONVERSATIONS, "templates": found}
    form = json.dumps(out, ensure_ascii=True, separators=(",", ":")).replace('{"source"', '\n{"source"')
    real_templates.VECTORS.write_text(form + "\n")
    cases = [c for t in found for c in t["cases"]]
    refused = sum(c[0].startswith("!") for c in cases)
    print(f"{len(found)} templates, {len(cases)} conversations: {len(cases) - refused} rendered, {refused} refused,"
          f" {sum(len(c) > 2 for c in cases)} with spans; {len(form)} bytes")


if __name__ == "__main__":
    main()
