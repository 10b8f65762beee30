"""The roofline of a result of bench/cpu.py as an SVG picture.

    python bench/roofline.py bench/results/cpu-v2-lite.json deepseek-v2-lite docs/roofline.svg

A point is a case: operations for each byte that it must read, and operations per second. The roof is the least of what
memory and the int8 products from registers allow, as measured in the same run.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import seamount.models
from seamount.models import cost

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 420, 70, 50, 20
LABELS = {
    "prefill": "prefill, 512 tokens",
    "decode": "1 stream",
    "context": "1 stream behind 4,096",
    "streams": "16 streams",
}
OFFSETS = {"prefill": (9, 5), "decode": (9, 4), "context": (9, 18), "streams": (9, 14)}  # of the labels, in pixels
X_RANGE, Y_RANGE = (1.0, 1e4), (1e9, 2e13)


def place(intensity: float, rate: float) -> tuple[float, float]:
    """Pixels of a point, both axes logarithmic."""
    x = math.log(intensity / X_RANGE[0]) / math.log(X_RANGE[1] / X_RANGE[0])
    y = math.log(rate / Y_RANGE[0]) / math.log(Y_RANGE[1] / Y_RANGE[0])
    return LEFT + x * (WIDTH - LEFT - 20), HEIGHT - BOTTOM - y * (HEIGHT - BOTTOM - TOP)


def points(result: dict[str, Any], preset: str) -> dict[str, tuple[float, float]]:
    """Operations a byte and operations per second of each case."""
    spec = seamount.models.load_spec(preset)
    operations = 2.0 * cost.parameters(spec).active
    found = {}
    for name, case in result["ours"]["cases"].items():
        used = case["share"] * case["limit"]
        if name == "prefill":
            found[name] = used * 512 / (case["tokens_per_second"] * result["ours"]["packed_bytes"]), used
        else:
            rate = operations * case["tokens_per_second"]
            found[name] = rate / used, rate
    return found


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """One label."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>'


def picture(result: dict[str, Any], preset: str) -> str:
    """The whole SVG."""
    cases = result["ours"]["cases"]
    memory, int8 = cases["decode"]["limit"], cases["prefill"]["limit"]
    ridge = int8 / memory
    roof = [place(X_RANGE[0], memory), place(ridge, int8), place(X_RANGE[1], int8)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(5):
        x, y = place(10.0**power, Y_RANGE[0])
        lines.append(f'<line x1="{x:.0f}" y1="{TOP}" x2="{x:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        lines.append(text(x, y + 18, f"{10**power:,}", "middle"))
    for power in range(9, 14):
        x, y = place(X_RANGE[0], 10.0**power)
        lines.append(f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{WIDTH - 20}" y2="{y:.0f}" stroke="#ddd"/>')
        lines.append(text(x - 6, y + 4, f"10^{power}", "end"))
    lines.append(text((LEFT + WIDTH) / 2, HEIGHT - 10, "operations for each byte read", "middle"))
    lines.append(text(LEFT + 6, TOP + 12, "operations per second"))
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in roof)
    lines.append(f'<polyline points="{corners}" fill="none" stroke="#333" stroke-width="2"/>')
    x, y = place(X_RANGE[1], int8)
    lines.append(text(x, y - 8, f"int8 from registers, {int8 / 1e12:.1f} T/s", "end"))
    x, y = place(60, 60 * memory)
    lines.append(text(x - 8, y - 8, f"memory, {memory / 1e9:.0f} GB/s", "end"))
    for name, (intensity, rate) in points(result, preset).items():
        x, y = place(intensity, rate)
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#c33"/>')
        lines.append(text(x + OFFSETS[name][0], y + OFFSETS[name][1], f"{LABELS[name]}: {cases[name]['share']:.0%}"))
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    source, preset, target = sys.argv[1:]
    result = json.loads(Path(source).read_text(encoding="utf-8"))
    Path(target).write_text(picture(result, preset), encoding="utf-8")


if __name__ == "__main__":
    main()
