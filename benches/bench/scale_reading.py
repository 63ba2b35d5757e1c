"""What etcd and pillion say of themselves: their `/metrics`, read and compared.

`scale` and `scale_fleet` take a reading before and one after what they measure.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping

LIMIT = 10.0
"""Seconds that a page may take."""


class Reading:
    """One scrape: samples by name, each with its labels."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for line in text.splitlines():
            if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
                name, labels, value = match.groups()
                pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
                self._samples.setdefault(name, []).append((pairs, float(value)))

    def sum(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Sum of the samples of that name that carry these labels; 0 without any."""
        wanted = (labels or {}).items()
        return sum(v for pairs, v in self._samples.get(name, []) if wanted <= pairs.items())

    def series(self) -> int:
        """How many samples there are."""
        return sum(map(len, self._samples.values()))


def page(port: int, path: str = "/metrics") -> bytes:
    """A page of a server on the loopback."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT) as answer:
        return answer.read()


def read(port: int) -> Reading:
    """A scrape of it."""
    return Reading(page(port).decode())
