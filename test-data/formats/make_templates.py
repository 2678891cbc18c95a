#!/usr/bin/env python3
"""Render the chat templates beside this script with transformers and write templates.json.

    python3 make_templates.py

Needs transformers and jinja2; the versions used are recorded in the output. No randomness; the clock is fixed.

A template marks what the assistant says with the comments {#G#} and {#/G#}. They print nothing; as {% generation %} blocks in
a second rendering they give transformers' own assistant spans (in UTF-16 units), against which spans that are located without
markers are checked.
"""
import datetime, json, pathlib, re
import jinja2, transformers
from transformers.utils import chat_template_utils as utils

HERE = pathlib.Path(__file__).resolve().parent
NOW = datetime.datetime(2026, 3, 7, 14, 5, 9)


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


utils.datetime = FixedClock

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def m(role, content, **extra):
    return {"role": role, "content": content, **extra}


CONVERSATIONS = {
    "one turn": [m("user", "What is a lynx?"), m("assistant", "A cat with tufted ears.")],
    "two turns with system": [
        m("system", "Be brief.\nBe kind."),
        m("user", "Hello"),
        m("assistant", "Hi!"),
        m("user", "And now?"),
        m("assistant", "Now we go on.\n\nSlowly."),
    ],
    "question only": [m("user", "Only a question?")],
    "beyond ASCII": [
        m("user", "日本語で 👩‍👩‍👧 と言って"),
        m("assistant", "はい、👩‍👩‍👧。 Straße, naïve, 🇩🇪!"),
        m("user", "مرحبا"),
        m("assistant", "😀"),
    ],
    "spaces around": [m("user", "  padded \n"), m("assistant", " \n answer with space \t\n")],
    "repeated words": [m("user", "assistant"), m("assistant", "assistant"), m("user", "assistant"), m("assistant", "user")],
    "markup in content": [m("user", "{{ 7 * 7 }} {% if %} <|im_end|>"), m("assistant", "It's \"quoted\" <b>&amp;</b> {# no #}")],
    "thinking": [
        m("user", "2+2?"),
        m("assistant", "<think>\ntwo and two\n</think>\n\n4"),
        m("user", "3+3?"),
        m("assistant", "<think>\nthree twice\n</think>\n\n6"),
    ],
    "parts": [
        m("user", [{"type": "text", "text": "What is this?"}, {"type": "image"}]),
        m("assistant", [{"type": "text", "text": "A picture."}, {"type": "text", "text": "Of a cat."}]),
    ],
    "tools": [
        m("user", "Weather in Oslo?"),
        m("assistant", "", tool_calls=[{"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Øslo", "n": 1.0}}}]),
        m("tool", "rain, 4 °C"),
        m("assistant", "It rains."),
    ],
    "reasoning": [m("user", "2+2?"), m("assistant", "4", reasoning_content="two and two")],
    "thinking field": [m("user", "2+2?"), m("assistant", "4", thinking="\ntwo and two")],
    "two users": [m("user", "a"), m("user", "b")],
    "named": [m("user", "Hi", name="Ann"), m("assistant", "Hello Ann")],
}


def units(text, index):
    return len(text[:index].encode("utf-16-le")) // 2


def render(template, messages, prompt, variables):
    messages = utils._alias_reasoning_fields(messages)
    compiled = utils._compile_jinja_template(template)
    return compiled.render(messages=messages, tools=variables.get("tools"), documents=None, add_generation_prompt=prompt,
                           **{k: v for k, v in variables.items() if k != "tools"})


def spans(template, messages, prompt, variables):
    messages = utils._alias_reasoning_fields(messages)
    marked = re.sub(r"\{#(-?)G#\}", r"{%\1 generation %}", template)
    marked = re.sub(r"\{#(-?)/G#\}", r"{%\1 endgeneration %}", marked)
    compiled = utils._compile_jinja_template(marked)
    kwargs = {k: v for k, v in variables.items() if k != "tools"}
    # Every message is inside the markers; those of the assistant are told by the order of the blocks.
    text, indices = utils._render_with_assistant_indices(compiled, messages, variables.get("tools"), None, prompt, **kwargs)
    return text, [[units(text, a), units(text, b)] for a, b in indices]


def main():
    cases = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_text()
        marks_all = path.stem in ("chatml", "headers", "turns", "parts", "counted", "joined")
        for name, messages in CONVERSATIONS.items():
            if "parts" == name and path.stem != "parts":
                continue
            if path.stem in ("expressions", "spaces") and name not in ("one turn", "two turns with system"):
                continue
            for prompt in (False, True):
                variables = {"bos_token": "<s>", "eos_token": "</s>"}
                if name == "tools":
                    variables["tools"] = [WEATHER]
                if path.stem == "thinking" and name == "question only":
                    variables["enable_thinking"] = False
                case = {"template": path.name, "conversation": name, "messages": messages, "variables": variables, "add_generation_prompt": prompt}
                try:
                    case["text"] = render(template, messages, prompt, variables)
                except Exception as e:  # The template or Python refuses: so must we.
                    case["error"] = type(e).__name__
                else:
                    if "/G#}" in template or "endgeneration" in template:
                        text, found = spans(template, messages, prompt, variables)
                        assert text == case["text"], (path.name, name)
                        if marks_all:
                            shown = [x for x in messages if not (path.stem == "joined" and x["role"] == "system")]
                            shown = [x for x in shown if not (path.stem == "headers" and (x["role"] in ("tool",) or "tool_calls" in x))]
                            if path.stem == "headers" and messages[0]["role"] == "system":
                                shown = shown[1:]
                            assert len(found) == len(shown), (path.name, name)
                            found = [s for s, x in zip(found, shown) if x["role"] == "assistant"]
                        if all(x["content"] for x in messages if x["role"] == "assistant"):
                            case["spans"] = found
                cases.append(case)
    out = {"versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__}, "now": NOW.isoformat(), "cases": cases}
    (HERE / "templates.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
    print(len(cases), "cases,", sum("error" in c for c in cases), "refused,", sum("spans" in c for c in cases), "with spans")


main()
