"""Where the assistant's answers stand in a rendering, found in another way than lora4j's: for make_real_templates.py.

Templates with generation blocks: transformers' own indices. The others: the same conversation is rendered with marks in place
of the answers' words, which tells where each begins and ends; what the template prints around them was read off the templates
by hand and stands in the tables below. A template that is not in them, or a conversation that leaves a doubt, has no
expectation.
"""

# What ends a turn, and the templates that print it: NAME, or SOURCE/NAME where several have the name.
ENDS = {
    "<|im_end|>\n": "lfm2 lfm2_v2 nemotron_3_5_lightning nemotron_3_nano nemotron_3_super nemotron_3_ultra qwen2_5 qwen2_5_vl trl/qwen3"
                    " qwen3_5_nothink qwen3_5_think qwen3_6 qwen3_8 qwen3_instruct_2507 qwen3_vl guidance/chatml axolotl/chatml qwen2dot5"
                    " qwen3_gguf falcon_h1 nemotron_h qwen2_vl Bielik-11B-v3.0-Instruct HuggingFaceTB-SmolLM3-3B LFM2-8B-A1B LFM2.5-Instruct"
                    " MiMo-VL Qwen-QwQ-32B Qwen-Qwen3-0.6B Qwen3-Coder openbmb-MiniCPM5-1B",
    "<|im_end|>": "Kimi-K2-Instruct Kimi-K2-Thinking moonshotai-Kimi-K2",
    "<|eot_id|>": "trl/llama3 llama3_1 llama3_2 axolotl/llama3 llama3_2_vision meetkai-functionary-medium-v3.1",
    "<|eot|>": "llama4",
    "<end_of_turn>\n": "trl/gemma trl/gemma3 axolotl/gemma axolotl/gemma3 gemma3n",
    "<turn|>\n": "diffusion_gemma trl/gemma4 gemma4_v2 gemma4_v3 gemma4_v4 gemma4_v5 axolotl/gemma4 google-gemma-4-31B-it-interleaved google-gemma-4-31B-it",
    "<|END_OF_TURN_TOKEN|>": "trl/cohere aya axolotl/cohere",
    "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>": "cohere2 command_a command_a_rag command_a_tool_use CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "<｜end▁of▁sentence｜>": "deepseek_r1_distill deepseekv3 deepseek_v3 Spark2.5 deepseek-ai-DeepSeek-R1-Distill-Llama-8B"
                             " deepseek-ai-DeepSeek-R1-Distill-Qwen-32B deepseek-ai-DeepSeek-V3.1 deepseek-ai-DeepSeek-V3.2"
                             " deepseek-ai-DeepSeek-V4-Flash-0731 deepseek-ai-DeepSeek-V4 llama-cpp-deepseek-r1",
    "</s>": "mistral_7b_instruct mistral_7b_instruct_llamacpp deepseek_v2 mistral_v1 mistral_v2v3 mistral_v3_tekken mistral_v7_tekken pixtral"
            " Mistral-Small-3.2-24B-Instruct-2506 mistralai-Ministral-3-14B-Reasoning-2512 mistralai-Mistral-Nemo-Instruct-2407"
            " unsloth-mistral-Devstral-Small-2507",
    " </s>": "llama2",
    "<|end|>\n": "trl/phi3 phi3_5 phi3_medium phi3_mini_llamacpp phi3_small phi_3 phi_35",
    "<|end|>": "phi_4_mini gptoss upstage-Solar-Open-100B",
    "</s>\n\n": "alpaca",
    "[|endofturn|]\n": "exaone exaone4",
    "<seed:eos>": "ByteDance-Seed-OSS",
    "<|message_sep|>\n\n": "GigaChat3-10B-A1.8B GigaChat3.1-10B-A1.8B",
    "<end_of_sentence>\n": "MiniMax-M1",
    "[e~[\n": "MiniMax-M2",
    "<|end_of_text|>\n": "ibm-granite-granite-3.3-2B-Instruct ibm-granite-granite-4.0 ibm-granite-granite-4.1",
    "\n\n": "llama-cpp-rwkv-world",
    "\n<|end|>\n</s>": "unsloth-Apriel-1.5",
}
# What ends the last turn, where it is something else.
LAST = {"<|end|>\n</s>": "trl/phi3 phi3_5 phi3_small", "<|end|></s>": "phi_4_mini", "<|return|>": "gptoss", "</s>": "alpaca"}
# What stands between the generation prompt and the content, in the turns where it does: the model has to write it.
BEFORE = {"<think>\n\n</think>\n\n": "trl/qwen3 qwen3_gguf Qwen-Qwen3-0.6B", "\n</think>\n\n": "qwen3_5_think qwen3_6 qwen3_8", "<think></think>": "Kimi-K2-Thinking",
          "<|channel|>final<|message|>": "gptoss", "<|content|>": "upstage-Solar-Open-100B", " ": "llama-cpp-rwkv-world"}

# Templates whose generation prompt has the mark of a thought or not, as enable_thinking says, and so has it before the content.
THINKS_IF_TOLD = "qwen3_5_nothink exaone4 deepseek-ai-DeepSeek-V4 deepseek-ai-DeepSeek-V4-Flash-0731".split()


def lookup(table, source, name):
    return next((text for text, names in table.items() if name in names.split() or f"{source}/{name}" in names.split()), None)


def units(text, index):
    return len(text[:index].encode("utf-16-le")) // 2


def merged(spans):
    """Without empty ones, and adjoining ones as one."""
    out = []
    for start, end in spans:
        if out and out[-1][1] == start:
            out[-1][1] = end
        elif end > start:
            out.append([start, end])
    return out


def spans(source, name, template, conversation, text, render):
    """The assistant's spans in UTF-16 units, or None where they are not known for sure."""
    if "endgeneration" in template:
        marked, indices = render(template, conversation, conversation["messages"], False, True)
        assert marked == text
        found = merged(indices)
    else:
        found = located(source, name, template, conversation, text, render)
    return None if found is None else [[units(text, a), units(text, b)] for a, b in found]


def located(source, name, template, conversation, text, render):
    messages = conversation["messages"]
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    end, before = lookup(ENDS, source, name), lookup(BEFORE, source, name)
    plain = all(isinstance(messages[i]["content"], str) and messages[i]["content"].strip() and set(messages[i]) <= {"role", "content", "" if before else "name"}
                and "think>" not in messages[i]["content"] for i in answers)
    if end is None or not plain or ("enable_thinking" in conversation.get("variables", {}) and (before or name in THINKS_IF_TOLD)):
        return None
    words = {i: messages[i]["content"].strip() for i in answers}
    marks = {i: f"\ue000{i}\ue001" for i in answers}

    def marked(strip=None, left=True):
        """Renders with marks for words; of message `strip` without the white space on one side. Text, or None if refused."""
        changed = []
        for i, m in enumerate(messages):
            content = m["content"]
            if i in marks:
                content = content.replace(words[i], marks[i], 1)
                content = content if i != strip else content.lstrip() if left else content.rstrip()
            changed.append({**m, "content": content})
        return render(template, conversation, changed, False)[0]

    whole = marked()
    if whole is None or any(whole.count(mark) != 1 for mark in marks.values()):
        return None
    found, shown, copied = [], "", 0
    for i in answers:
        at = whole.index(marks[i])
        content = messages[i]["content"]
        lead, trail = content[:len(content) - len(content.lstrip())], content[len(content.rstrip()):]
        start, after = at, at + len(marks[i])
        if lead:
            other = marked(i, True)
            kept = at - other.index(marks[i])
            assert kept in (0, len(lead)), (name, i)
            start -= kept
        if trail:
            other = marked(i, False)
            kept = len(whole) - len(other)
            assert kept in (0, len(trail)), (name, i)
            after += kept
        if before and whole[:start].endswith(before):
            start -= len(before)
        last = lookup(LAST, source, name) if i == len(messages) - 1 else None
        ending = last or end
        if not whole.startswith(ending, after):
            return None
        found.append((start, after + len(ending)))
        # The same place in the text with the words themselves.
        shown += whole[copied:start]
        begin = len(shown)
        shown += whole[start:after + len(ending)].replace(marks[i], words[i])
        copied = after + len(ending)
        found[-1] = [begin, len(shown)]
    # What the words change in the template's doing would show here.
    return merged(found) if shown + whole[copied:] == text else None
