"""Charts as SVG, written by hand: no library is needed, and a diff can be read."""
from xml.sax.saxutils import escape

COLOURS = ["#1b6ac9", "#e07b00", "#3a9a3a", "#b03060", "#7a52c7", "#00909a", "#8a6d3b", "#555555", "#c2a000", "#d05ad0", "#7f9f00"]
LEFT, WIDTH, ROW, TOP = 210, 640, 16, 34


def page(title, panels):
    """Panels below each other: (what the share is of, [(row, {label: share})]). A point for each label of a row, lines at each fifth."""
    parts, y = [f'<text x="12" y="20" class="title">{escape(title)}</text>'], TOP
    for caption, rows in panels:
        drawn, height = panel(caption, [row for row in rows if row[1]], y)
        parts += drawn
        y += height
    style = "text{font:11px sans-serif;fill:#222}.title{font-size:14px;font-weight:bold}.caption{font-weight:bold}.end{text-anchor:end}.mid{text-anchor:middle}line{stroke:#ddd}line.full{stroke:#888}"
    width = LEFT + WIDTH + 30
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">', f"<style>{style}</style>",
                      f'<rect width="{width}" height="{y}" fill="#fff"/>', *parts, "</svg>", ""])


def panel(caption, rows, y):
    first = y
    labels = list(dict.fromkeys(label for _, points in rows for label in points))
    top = max([1.0, *(share for _, points in rows for share in points.values())])
    fifths = range(0, int(top * 5 + 0.999) + 1)
    at = lambda share: LEFT + WIDTH * share * 5 / fifths[-1]
    parts, x = [f'<text x="12" y="{y + 14}" class="caption">{escape(caption)}</text>'], LEFT
    y += 26
    for i, label in enumerate(labels):
        if x + 24 + 6.2 * len(label) > LEFT + WIDTH and x > LEFT:
            x, y = LEFT, y + ROW
        parts += [f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[i % len(COLOURS)]}"/>', f'<text x="{x + 8}" y="{y + 4}">{escape(label)}</text>']
        x += 24 + 6.2 * len(label)
    begin, end = y + 14, y + 14 + ROW * len(rows)
    for fifth in fifths:
        kind = ' class="full"' if fifth == 5 else ""
        parts += [f'<line x1="{at(fifth / 5):.1f}" y1="{begin}" x2="{at(fifth / 5):.1f}" y2="{end}"{kind}/>', f'<text x="{at(fifth / 5):.1f}" y="{end + 13}" class="mid">{20 * fifth} %</text>']
    for i, (name, points) in enumerate(rows):
        middle = begin + ROW * i + ROW / 2
        parts += [f'<text x="{LEFT - 10}" y="{middle + 4}" class="end">{escape(name)}</text>', f'<line x1="{LEFT}" y1="{middle}" x2="{LEFT + WIDTH}" y2="{middle}"/>']
        for label, share in points.items():
            parts.append(f'<circle cx="{at(share):.1f}" cy="{middle}" r="4" fill="{COLOURS[labels.index(label) % len(COLOURS)]}"><title>{escape(name)}: {escape(label)} {100 * share:.0f} %</title></circle>')
    return parts, end + 30 - first
