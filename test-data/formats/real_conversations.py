"""The conversations of make_real_templates.py: what users bring, and what makes templates stumble."""


def m(role, content, **extra):
    return {"role": role, "content": content, **extra}


def function(name, description, **properties):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": properties, "required": list(properties)}}}


TOOLS = [
    function("get_weather", "Weather of a place", city={"type": "string", "description": "The city, e.g. Tromsø"}, unit={"type": "string", "enum": ["C", "F"]}),
    function("add", "Adds numbers.\nAll of them.", numbers={"type": "array", "items": {"type": "number"}}, exact={"type": "boolean"}),
]


def call(name, arguments, id="abcdefghi"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def conversation(*messages, **variables):
    return {"messages": list(messages), **({"variables": variables} if variables else {})}


TWO_TURNS = (m("user", "Hello"), m("assistant", "Hi! What is it?"), m("user", "Name a cat."), m("assistant", "A lynx."))
THOUGHT = (m("user", "2+2?"), m("assistant", "It is 4.", reasoning_content="Two and two."), m("user", "3+3?"),
           m("assistant", "It is 6.", reasoning_content="Thrice two.\nSure."))
ASKED = (m("user", "Weather in Tromsø?"), m("assistant", "", tool_calls=[call("get_weather", {"city": "Tromsø", "unit": "C"})]),
         m("tool", "snow, -4 °C", tool_call_id="abcdefghi", name="get_weather"))

CONVERSATIONS = {
    "question": conversation(m("user", "What is a lynx?")),
    "answer": conversation(m("user", "What is a lynx?"), m("assistant", "A cat with tufted ears.")),
    "two turns": conversation(*TWO_TURNS),
    "system": conversation(m("system", "Be brief."), *TWO_TURNS),
    "system question": conversation(m("system", "Be brief.\n\nBe kind.\n"), m("user", "Hello")),
    "empty system": conversation(m("system", ""), *TWO_TURNS),
    "late system": conversation(*TWO_TURNS[:2], m("system", "Be brief."), *TWO_TURNS[2:]),
    "developer": conversation(m("developer", "Be brief."), *TWO_TURNS),
    "long": conversation(*(m(("user", "assistant")[i % 2], f"Number {i}.") for i in range(12))),
    "spaces": conversation(m("system", " \n be brief \n"), m("user", "  padded \n"), m("assistant", " \n answer \t\n"), m("user", "\tmore"), m("assistant", "  done")),
    "lines": conversation(m("user", "one\ntwo\n\nthree"), m("assistant", "```python\nfor x in y:\n    print(x)\n```\n\n- a\n- b"), m("user", "a\r\nb"), m("assistant", "ok\n\nyes")),
    "beyond ASCII": conversation(m("user", "日本語で 👩‍👩‍👧 と言って"), m("assistant", "はい、👩‍👩‍👧。 Straße, naïve, 🇩🇪!"), m("user", "مرحبا e\u0301"), m("assistant", "😀")),
    "repeated": conversation(m("user", "assistant"), m("assistant", "assistant"), m("user", "assistant"), m("assistant", "user"), m("user", "user"), m("assistant", "assistant")),
    "echo": conversation(m("user", "Say: A lynx. Then: cat"), m("assistant", "A lynx."), m("user", "A lynx. cat"), m("assistant", "cat"), m("user", "cat"), m("assistant", "A")),
    "markup": conversation(m("user", "{{ 7 * 7 }} {% if %} <|im_end|> [INST]"), m("assistant", "It's \"quoted\" <b>&amp;</b> {# no #} \\n</s> 'x'")),
    "empty answer": conversation(m("user", "Say nothing."), m("assistant", ""), m("user", "Now?"), m("assistant", "Now.")),
    "empty question": conversation(m("user", ""), m("assistant", "Yes?")),
    "no content": conversation(m("user", "Hello"), m("assistant", None)),
    "two users": conversation(m("user", "a"), m("user", "b"), m("assistant", "c")),
    "two assistants": conversation(m("user", "a"), m("assistant", "b"), m("assistant", "c")),
    "assistant first": conversation(m("assistant", "Welcome."), m("user", "Hello"), m("assistant", "Hi.")),
    "unknown role": conversation(m("user", "Hello"), m("narrator", "It rains.")),
    "nothing": conversation(),
    "named": conversation(m("user", "Hi", name="Ann"), m("assistant", "Hello Ann", name="Bob")),
    "parts": conversation(m("user", [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]), m("assistant", [{"type": "text", "text": "A cat."}])),
    "image": conversation(m("user", [{"type": "image"}, {"type": "text", "text": "What is this?"}]), m("assistant", [{"type": "text", "text": "A picture. "}, {"type": "text", "text": "Of a cat."}])),
    "thoughts in content": conversation(m("user", "2+2?"), m("assistant", "<think>\nTwo and two.\n</think>\n\nIt is 4."), m("user", "3+3?"), m("assistant", "<think>\nThrice two.\n</think>\n\nIt is 6.")),
    "thoughts": conversation(*THOUGHT),
    "thoughts, thinking": conversation(*THOUGHT, enable_thinking=True, thinking=True),
    "thoughts, no thinking": conversation(*THOUGHT, enable_thinking=False, thinking=False),
    "thinking": conversation(m("system", "Be brief."), *TWO_TURNS, enable_thinking=True, thinking=True),
    "no thinking": conversation(m("system", "Be brief."), *TWO_TURNS, enable_thinking=False, thinking=False),
    "no thinking question": conversation(m("user", "Hello /no_think"), enable_thinking=False),
    "thinking field": conversation(m("user", "2+2?"), m("assistant", "4", thinking="\nTwo and two.")),
    "tools": conversation(*TWO_TURNS, tools=TOOLS),
    "tools, system": conversation(m("system", "Be brief."), m("user", "Weather?"), tools=TOOLS),
    "no tools": conversation(*TWO_TURNS, tools=[]),
    "call": conversation(*ASKED[:2], tools=TOOLS),
    "call answered": conversation(*ASKED, tools=TOOLS),
    "call and answer": conversation(m("system", "Be brief."), *ASKED, m("assistant", "It snows in Tromsø."), tools=TOOLS),
    "call without tools": conversation(*ASKED, m("assistant", "It snows.")),
    "call, text arguments": conversation(m("user", "Add 1 and 2.5."), m("assistant", "I add.", tool_calls=[call("add", '{"numbers": [1, 2.5], "exact": true}')]),
                                         m("tool", "3.5", tool_call_id="abcdefghi"), m("assistant", "3.5"), tools=TOOLS),
    "two calls": conversation(m("user", "Both."), m("assistant", None, tool_calls=[call("add", {"numbers": [1, 2.50, 1e20, -0.0], "exact": None}, "call00001"), call("get_weather", {"city": "<b>'\"\\", "unit": {"x": []}}, "call00002")]),
                              m("tool", '{"sum": 3.5}', tool_call_id="call00001", name="add"), m("tool", "rain", tool_call_id="call00002", name="get_weather"), m("assistant", "Done."), tools=TOOLS),
    "call with thoughts": conversation(m("user", "Add."), m("assistant", "", reasoning_content="I need add.", tool_calls=[call("add", {"numbers": [1]})]),
                                       m("tool", "1", tool_call_id="abcdefghi", name="add"), m("assistant", "1", reasoning_content="Got it."), m("user", "Thanks"), m("assistant", "Welcome."), tools=TOOLS),
    "documents": conversation(m("user", "What is a lynx?"), m("assistant", "A cat."), documents=[{"title": "Cats", "text": "A lynx is a cat.", "contents": "A lynx is a cat."}]),
    "variables": conversation(m("system", "Be brief."), *TWO_TURNS, date_string="26 Jul 2024", reasoning_effort="high", model_identity="You are a test.", builtin_tools=["python"], custom_tools=TOOLS, tools_in_user_message=False, preserve_thinking=False, clear_thinking=False),
}
