"""Results on disk: <cpu>.json holds every figure; <cpu>.md and <cpu>.svg are made from it."""
import json

from . import chart, goals


def save(path, machine, isa, threads, section, figures):
    """Replaces one section of one tier and number of threads, and writes all files anew."""
    file = path.with_name(path.name + ".json")
    results = json.loads(file.read_text()) if file.exists() else {"runs": {}}
    results["machine"] = machine.about()
    run = results["runs"].setdefault(f"{isa}, {threads} threads", {"isa": isa, "threads": threads, "caps": machine.caps(), "sections": {}})
    run["sections"][section] = json.loads(json.dumps(figures))  # keys as JSON has them
    path.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dump(results) + "\n")
    path.with_name(path.name + ".md").write_text(markdown(results, path.name))
    path.with_name(path.name + ".svg").write_text(drawing(results))


def dump(value, depth=0):
    """JSON with a line for each entry of a case, so that a change can be read in a diff."""
    if isinstance(value, dict) and value and depth < 8 and not "median" in value:
        pad = " " * (depth + 1)
        return "{\n" + ",\n".join(f"{pad}{json.dumps(k)}: {dump(v, depth + 1)}" for k, v in value.items()) + "\n" + " " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(" " * (depth + 1) + dump(v, depth + 1) for v in value) + "\n" + " " * depth + "]"
    return json.dumps(value, ensure_ascii=False)


def drawing(results):
    """Ours and the peers of every case that has a limit, in percent of it."""
    panels = []
    for title, run in results["runs"].items():
        for section, figures in run["sections"].items():
            rows = []
            for case in figures["cases"]:
                shares = {label: goals.share(case, label) for label in case["entries"] if not goals.is_limit(label)}
                rows.append((case["name"], {label: share for label, share in shares.items() if share}))
            if any(shares for _, shares in rows):
                panels.append((f"{section}, {title}: percent of the measured limit", rows))
    return chart.page(f"{results['machine']['cpu']}, {results['machine']['model']}", panels)


def markdown(results, name):
    machine = results["machine"]
    lines = [f"# {machine['cpu']}, {machine['model']}", "",
             f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}. Written by `bench/run.py`;"
             f" every sample is in [{name}.json]({name}.json), a chart of the shares of the limit in [{name}.svg]({name}.svg). Times are medians of interleaved rounds, ± half the distance of the quartiles.", ""]
    for title, run in results["runs"].items():
        lines += [f"## {title}", ""]
        if run["caps"]:
            lines += ["Every process: `" + " ".join(f"{k}={v}" for k, v in run["caps"].items()) + "`.", ""]
        lines += ["| line | what | figure | goal | reached |", "|---|---|---|---|---|"]
        lines += [f"| {line} | {what} | {figure} | {goal} | {'yes' if reached else '**no**'} |" for line, what, figure, goal, reached in goals.judge(run["sections"])]
        for section, figures in run["sections"].items():
            lines += ["", f"### {section}", "", about(figures), "", *table(figures["cases"])]
            for case in figures["cases"]:
                lines += profile(case)
        lines.append("")
    return "\n".join(lines)


def about(figures):
    versions = figures["versions"]
    parts = [f"{key} {versions[key]}" for key in ("torch", "torch peft", "peft", "transformers", "llama-cpp-python", "llama.cpp") if key in versions]
    parts += [str(versions[key]) for key in ("openblas",) if key in versions]
    parts += [f"oneDNN {versions['onednn']}"] if "onednn" in versions else []
    return f"{figures['date']}, commit {figures['commit']}{', quick' if figures['quick'] else ''}. {', '.join(parts)}."


def table(cases):
    """A row for each case: ms or tokens/s, ± spread, share of the limit; the limit itself in GFLOP/s or GB/s."""
    labels = list(dict.fromkeys(label for case in cases for label in case["entries"]))
    rows = ["| | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    for case in cases:
        rows.append("| " + " | ".join([case["name"], *(cell(case, label) for label in labels)]) + " |")
    return rows


def profile(case):
    """Where the time of a step goes (step_profile.py)."""
    found = case.get("profile")
    if found is None:
        return []
    if "skipped" in found:
        return ["", f"No profile of {case['name']}: {found['skipped']}."]
    lines = ["", f"Profile of {case['name']}, {found['samples']} samples; limits: {1e-9 * found['fma']:.4g} GFLOP/s, {1e-9 * found['copy']:.4g} GB/s copied.", "",
             "| operation | share | ms a step | of its limit | where |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        limit = f"{100 * row['limit']:.0f} % of {'FMA' if row['of'] == 'flops' else 'copy'}" if row["limit"] else ""
        where = ", ".join(f"{leaf} {100 * part:.0f} %" for leaf, part in row["where"].items())
        lines.append(f"| {row['operation']} | {100 * row['share']:.1f} % | {row['ms']:.4g} | {limit} | {where} |")
    return lines


def cell(case, label):
    entry = case["entries"].get(label)
    if entry is None:
        return ""
    if "error" in entry:
        return "failed: " + entry["error"].replace("|", "/")
    if goals.is_limit(label):
        unit, name = ("bytes", "GB/s") if entry.get("bytes") else ("flops", "GFLOP/s")
        return f"{1e-9 * goals.rate(entry, unit):.4g} {name}"
    text = f"{entry['tokens'] / entry['median']:.4g} tokens/s" if "tokens" in entry else f"{1e3 * entry['median']:.4g} ms"
    text += f" ± {100 * entry['spread']:.0f} %"
    if "peak_rss_gib" in entry:
        text += f", {entry['peak_rss_gib']:.2f} GiB"
    share = goals.share(case, label)
    return text + (f", {100 * share:.0f} %" if share else "")
