"""Draws bars of what `report.Results` holds, as one SVG that is readable on light and on dark.

`cli.publish` writes it beside the document. A panel is one figure of one case, a bar a proxy: the
median, with a line from minimum to maximum. Each panel has a scale of its own, from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.proxies import PILLION
from bench.report import Results, Spread

COLUMNS = 3
WIDTH, MARGIN = 320, 16
NAME, VALUE = 92, 62
"""Room for a proxy's name before its bar, and for the figure after it."""
ROW, TITLE, HEADING, FOOT = 19, 34, 44, 18

STYLE = """
  text { fill: #1f2328; font-size: 12px; font-family: system-ui, "DejaVu Sans", sans-serif; }
  .heading { font-size: 17px; font-weight: 600; }
  .title { font-weight: 600; }
  .name, .figure { fill: #59636e; }
  .name { text-anchor: end; }
  .back { fill: #ffffff; }
  .ours { fill: #0a7d5a; }
  .theirs { fill: #a3afbb; }
  .range { stroke: #1f2328; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .name, .figure { fill: #9198a1; }
    .back { fill: #0d1117; }
    .ours { fill: #2fbf8f; }
    .theirs { fill: #57616d; }
    .range { stroke: #e6edf3; }
  }
"""


@dataclass(frozen=True)
class Panel:
    """One figure of a case."""

    title: str
    key: str
    case: str
    beside: str = ""
    """Another case, of which pillion's bar stands beside the others as `pillion, warm`."""
    divisor: float = 1
    digits: int = 1


SECTIONS = {
    "CPU a call, µs": [
        Panel("pooled, 8 x 32", "cpu_us", "pooled-8x32"),
        Panel("pooled, one at a time", "cpu_us", "pooled-1x1"),
        Panel("pooled, 64 x 1", "cpu_us", "pooled-64x1"),
        Panel("fresh, 8 x 32", "cpu_us", "fresh-8x32", "warm-8x32"),
        Panel("fresh, one at a time", "cpu_us", "fresh-1x1", "warm-1x1"),
        Panel("fresh, 64 x 1", "cpu_us", "fresh-64x1", "warm-64x1"),
        Panel("pooled, 1,000 services in turn", "cpu_us", "services"),
    ],
    "CPU a MiB, µs": [
        Panel("64 KiB up", "cpu_us", "64k-up", digits=0),
        Panel("64 KiB down", "cpu_us", "64k-down", digits=0),
        Panel("4 MiB up", "cpu_us", "4m-up", digits=0),
        Panel("4 MiB down", "cpu_us", "4m-down", digits=0),
    ],
    "Latency, ms": [
        Panel("pooled, one at a time, mean", "mean_us", "pooled-1x1", divisor=1e3, digits=3),
        Panel("fresh, one at a time, mean", "mean_us", "fresh-1x1", "warm-1x1", 1e3, 3),
        Panel("endpoints 1 ms away, p50", "p50_us", "distance", divisor=1e3, digits=2),
        Panel("at half load, p50", "p50_us", "half", divisor=1e3, digits=2),
        Panel("at half load, p99", "p99_us", "half", divisor=1e3, digits=2),
        Panel("at half load, p99.9", "p999_us", "half", divisor=1e3, digits=2),
        Panel("three endpoints alive, p99", "alive_p99_us", "endpoints", divisor=1e3, digits=2),
        Panel("one of them refuses, p99", "refused_p99_us", "endpoints", divisor=1e3, digits=2),
        Panel("one of them is silent, p99", "silent_p99_us", "endpoints", divisor=1e3, digits=2),
    ],
    "Memory, MiB": [
        Panel("idle", "pss_mib", "idle"),
        Panel("1,000 connections", "pss_mib", "memory-1000"),
        Panel("10,000 open streams", "open_mib", "streams-10000"),
    ],
}


def draw(results: Results) -> str:
    """The whole picture: every panel that has figures."""
    parts, top = [], MARGIN
    for heading, panels in SECTIONS.items():
        filled = [(panel, rows) for panel in panels if (rows := _rows(panel, results))]
        if not filled:
            continue
        parts.append(_text(MARGIN, top + 20, heading, "heading"))
        top += HEADING
        for start in range(0, len(filled), COLUMNS):
            line = filled[start : start + COLUMNS]
            for column, (panel, rows) in enumerate(line):
                parts += _panel(panel, rows, MARGIN + column * WIDTH, top)
            top += TITLE + ROW * max(len(rows) for _, rows in line) + FOOT
    width = 2 * MARGIN + COLUMNS * WIDTH
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
            f'width="{width}" height="{top}" role="img">',
            f"<title>{escape('pillion beside other proxies: less is better everywhere')}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{width}" height="{top}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _rows(panel: Panel, results: Results) -> list[tuple[str, Spread]]:
    """Names and spreads; pillion first, since tables have it first."""
    found = {}
    for proxy, rounds in results.samples.get(panel.case, {}).items():
        found[proxy] = rounds
        ahead = results.samples.get(panel.beside, {}).get(proxy)
        if ahead and proxy == PILLION:
            found[f"{proxy}, warm"] = ahead
    return [
        (proxy, Spread.of([figures[panel.key] / panel.divisor for figures in rounds.values()]))
        for proxy, rounds in found.items()
        if rounds
    ]


def _panel(panel: Panel, rows: list[tuple[str, Spread]], left: float, top: float) -> list[str]:
    parts = [_text(left, top + 16, panel.title, "title")]
    scale = (WIDTH - NAME - VALUE - MARGIN) / (max(spread.high for _, spread in rows) or 1)
    for number, (proxy, spread) in enumerate(rows):
        middle = top + TITLE + number * ROW
        start = left + NAME
        kind = "ours" if proxy.startswith(PILLION) else "theirs"
        parts.append(_text(start - 6, middle + 4, proxy, "name"))
        parts.append(
            f'<rect class="{kind}" x="{start:.1f}" y="{middle - 6:.1f}" '
            f'width="{spread.median * scale:.1f}" height="12"/>'
        )
        if spread.high > spread.low:
            low, high = start + spread.low * scale, start + spread.high * scale
            parts.append(
                f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
            )
        after = start + max(spread.median, spread.high) * scale + 6
        parts.append(_text(after, middle + 4, f"{spread.median:,.{panel.digits}f}", "figure"))
    return parts


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
