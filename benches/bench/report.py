"""Turns the figures of all rounds into tables, JSON, and the figures in docs/performance.md.

A ratio is taken between two measurements of the same round, so that what slows a whole round
falls out of it; shown is the median of these ratios, not the ratio of the medians.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.metric import Metric
from bench.proxies import EVERYTHING, PILLION, ROOT

BEGIN = "<!-- figures: written by `make bench`, do not edit -->"
BEGIN_SCALE = "<!-- figures: written by `benches/run --case scale`, do not edit -->"
END = "<!-- end of figures -->"


@dataclass
class Results:
    """All that a run has found. `cli` fills it while it goes."""

    rounds: int
    seconds: float
    cores: tuple[int, int]
    isolated: bool
    versions: dict[str, str]
    skipped: dict[str, str]
    """Proxies that could not be measured, with the reason."""
    samples: dict[str, dict[str, dict[int, dict[str, float]]]] = field(default_factory=dict)
    """case -> proxy -> round -> figures."""
    failures: list[str] = field(default_factory=list)
    busy: float = 0.0
    """Largest share (0 to 1) of the machine that others used before a round."""
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))

    def expect(self, case: str, proxies: list[str]) -> None:
        """Says who takes part in a case, in the order of its tables."""
        self.samples[case] = {proxy: {} for proxy in proxies}

    def add(self, case: str, proxy: str, round_: int, figures: dict[str, float]) -> None:
        """Notes one measurement."""
        self.samples.setdefault(case, {}).setdefault(proxy, {})[round_] = figures


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int, with_range: bool) -> str:
        """`5.2 (5.1 to 5.4)`, or `5.2`."""
        # Not "-0".
        middle = f"{round(self.median, digits) + 0.0:,.{digits}f}"
        if not with_range or self.low == self.high:
            return middle
        return f"{middle} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def ratios(ours: dict[int, dict], theirs: dict[int, dict], key: str) -> Spread | None:
    """Our figure as a multiple of theirs, over the rounds that have both."""
    pairs = [
        ours[round_][key] / theirs[round_][key]
        for round_ in sorted(ours.keys() & theirs.keys())
        if theirs[round_][key] > 0
    ]
    return Spread.of(pairs) if pairs else None


def differences(ours: dict[int, dict], theirs: dict[int, dict], key: str) -> Spread | None:
    """How much more ours is than theirs, over the rounds that have both."""
    both = sorted(ours.keys() & theirs.keys())
    pairs = [ours[round_][key] - theirs[round_][key] for round_ in both]
    return Spread.of(pairs) if pairs else None


def figures_table(metrics: tuple[Metric, ...], samples: dict[str, dict[int, dict]]) -> str:
    """The figures of one case as an aligned Markdown table, a proxy a line."""
    lines = [["proxy", *(metric.heading for metric in metrics)]]
    for proxy, rounds in samples.items():
        line = [proxy]
        for metric in metrics:
            values = [figures[metric.key] for figures in rounds.values()]
            line.append(Spread.of(values).text(metric.digits, metric.spread))
        lines.append(line)
    return align(lines)


def ratios_table(
    metrics: tuple[Metric, ...], samples: dict[str, dict[int, dict]], base: str = PILLION
) -> str | None:
    """The same for the base as a multiple of each other row, if there are both."""
    compared = [metric for metric in metrics if metric.ratio]
    others = [proxy for proxy in samples if proxy != base]
    if base not in samples or not others or not compared:
        return None
    lines = [[f"{base} as a multiple of", *(_short(metric.heading) for metric in compared)]]
    for proxy in others:
        line = [proxy]
        for metric in compared:
            ratio = ratios(samples[base], samples[proxy], metric.key)
            line.append(ratio.text(2, with_range=True) if ratio else "")
        lines.append(line)
    return align(lines)


def cost_of_policy(samples: dict[str, dict[int, dict]]) -> str | None:
    """What all traffic policy costs, if pillion was measured with and without it."""
    if not {PILLION, EVERYTHING} <= samples.keys():
        return None
    more = differences(samples[EVERYTHING], samples[PILLION], "cpu_us")
    return more and f"All traffic policy costs {more.text(2, with_range=True)} us of CPU a call."


def render(results: Results, cases: list) -> str:
    """All tables, and what one must know to judge them."""
    parts = [_circumstances(results)]
    for case in cases:
        found = results.samples.get(case.name, {})
        # Who failed in every round has no row.
        if samples := {proxy: rounds for proxy, rounds in found.items() if rounds}:
            parts.append(f"### {case.title} (`{case.name}`)")
            parts.append(figures_table(case.metrics, samples))
            if comparison := ratios_table(case.metrics, samples, case.base):
                parts.append(comparison)
            if cost := cost_of_policy(samples):
                parts.append(cost)
    if results.failures:
        parts.append("### Not measured")
        parts.append("\n".join(f"- {failure}" for failure in results.failures))
    return "\n\n".join(parts) + "\n"


def write_json(results: Results, path: Path) -> None:
    """Every figure of every round, a measurement a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**vars(results), "machine": machine()}
    text = json.dumps(content, indent=1)
    text = re.sub(r"\{[^{}]*\}", lambda innermost: " ".join(innermost[0].split()), text)
    path.write_text(text + "\n")


def write_between_markers(text: str, path: Path, marker: str = BEGIN) -> None:
    """Replaces what stands between the two markers of a document."""
    before, begin, rest = path.read_text().partition(marker)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has not both of {marker} and {END}")
    path.write_text(f"{before}{marker}\n\n{text}\n{END}{after}")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "CPU part"))
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "commit": _commit(),
    }


def _circumstances(results: Results) -> str:
    about = machine()
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    network = (
        "each in a network namespace of its own"
        if results.isolated
        else "on the machine's own loopback (connections of other programs may be counted)"
    )
    lines = [
        f"Measured {results.started} at commit {about['commit']}, on {about['cpu']}, "
        f"{about['cores']} cores, Linux {about['kernel']}.",
        f"Rounds: {results.rounds}, with {results.seconds:g} s of calls for each figure, "
        f"{network}; the proxy on core "
        f"{results.cores[0]}, load and backends on core {results.cores[1]}. "
        "Medians of the rounds, with minimum and maximum.",
        f"{versions}.",
    ]
    if results.busy > 0.05:
        lines.append(
            f"**Others used the machine meanwhile** (up to {results.busy:.0%} of it between the "
            "rounds): figures are noisy."
        )
    lines += [f"Left out: {name}, {reason}." for name, reason in results.skipped.items()]
    return "\n".join(lines)


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _short(heading: str) -> str:
    """A heading without its unit: what remains of it in a ratio."""
    return re.sub(r", [^,]*$", "", heading)


def align(lines: list[list[str]]) -> str:
    """A Markdown table; the first line is its head."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    first, *rest = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([first, rule, *rest])
