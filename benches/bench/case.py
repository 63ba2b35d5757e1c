"""What every case has in common: what it is called, who takes part, and what it shows.

`cases` lists the cases; `cli` runs them and `report` prints them by what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.metric import Metric
from bench.proxies import PILLION, Proxy
from bench.site import Site

MESSAGE = 133
"""Bytes of a gRPC message, both ways, its prefix of five included."""


@dataclass(frozen=True)
class Case:
    """A thing to measure. A kind of case is a subclass with `metrics` and `measure`."""

    name: str
    title: str
    mode: str = "pooled"
    """Upstream connections, as in `Proxy.modes`."""
    rounds: int = 1000
    """Rounds of a run that it takes part in at most, for what hardly differs between them."""
    metrics: tuple[Metric, ...] = ()
    base = PILLION
    """The row that the others are compared with."""

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """Those of the proxies that can take part. Their names are the rows of its table."""
        return [proxy for proxy in proxies if self.mode in proxy.modes]

    def measure(self, site: Site) -> dict[str, float]:
        """Figures of one proxy, checked. Raises `Failed` if they cannot be trusted."""
        raise NotImplementedError
