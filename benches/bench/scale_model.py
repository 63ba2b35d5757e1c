"""What a fleet asks of etcd, from what 200 hosts were measured to ask.

`cli` puts its table below the measured ones. The formulas are linear because the work is: etcd does
the same for each watch, each question and each event, whoever else there is. docs/scale.md says
which of the assumptions a reader should replace by his own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench import scale_fleet
from bench.report import align
from bench.scale_fleet import EAGER, FIVE, LAZY, NOBODY, REGISTERED, TEN, USED, Kind

HOSTS = 10_000
SERVICES = 1_000
"""Different ones in the fleet; each host uses as many as were measured."""
CHANGES = 10
"""Records that come, go or change a second: each host's own every 17 minutes."""
RELIST = 600.0
"""Seconds after which pillion lists each service again, whatever it was told."""
SHOWN = [LAZY, EAGER, REGISTERED, TEN, FIVE]

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Ask:
    """What is asked of one etcd."""

    watches: float
    connections: float
    requests: float
    """A second."""
    idle_mib: float
    """MiB a second, both ways, headers included, while nothing changes."""
    events: float
    """Events told a second."""
    event_mib: float
    """MiB a second sent for them."""
    cores: float
    rss_gib: float


def ask(kind: Kind, samples: Mapping[str, Figures]) -> Ask:
    """What as many hosts of this kind ask of one etcd."""
    base, measured, polled = samples[NOBODY.name], samples[kind.name], samples[TEN.name]
    share = HOSTS / kind.hosts
    requests = (measured["requests_s"] - base["requests_s"]) * share
    idle = (measured["wire_kib_s"] - base["wire_kib_s"]) * share
    cores = (measured["busy"] - base["busy"]) / 100 * share
    if kind.mode == "lazy":
        # Too rare to be seen in a few seconds: as dear as a question of one who polls.
        lists = HOSTS * USED / RELIST
        requests += lists
        idle += lists * polled["wire_kib_s"] / polled["ranges_s"]
        cores += lists * (polled["busy"] - base["busy"]) / 100 / polled["ranges_s"]
    events = CHANGES * told(kind)
    return Ask(
        watches=kind.watches() * share,
        connections=HOSTS * (1 + kind.registered),
        requests=requests,
        idle_mib=idle / 1024,
        events=events,
        event_mib=events * event_kib(kind, samples) / 1024,
        cores=cores + events * event_cpu(kind, samples),
        rss_gib=(base["rss"] + (measured["rss"] - base["rss"]) * share) / 1024,
    )


def told(kind: Kind) -> float:
    """Hosts of the fleet that one change concerns."""
    return {"lazy": HOSTS * USED / SERVICES, "eager": HOSTS, "poll": 0}[kind.mode]


def event_kib(kind: Kind, samples: Mapping[str, Figures]) -> float:
    """KiB sent for an event to one host."""
    measured, base = samples[kind.name], samples[NOBODY.name]
    if not measured["told_s"]:
        return 0
    answers = base["sent_kib_s"] / base["changes_s"] * measured["changes_s"]
    rest = measured["idle_sent_kib_s"]
    return max(measured["sent_kib_s"] - answers - rest, 0) / measured["told_s"]


def event_cpu(kind: Kind, samples: Mapping[str, Figures]) -> float:
    """Seconds of etcd's CPU for an event to one host."""
    measured, base = samples[kind.name], samples[NOBODY.name]
    if not measured["told_s"]:
        return 0
    puts = (base["change_busy"] - base["busy"]) / base["changes_s"] * measured["changes_s"]
    spent = measured["change_busy"] - measured["busy"] - puts
    return max(spent, 0) / 100 / measured["told_s"]


def table(samples: Mapping[str, Figures]) -> str | None:
    """The fleet's table, if all that it is made from was measured."""
    if not {kind.name for kind in [NOBODY, *SHOWN]} <= samples.keys():
        return None
    lines = [
        ["10,000 hosts", "watches", "connections", "requests/s", "MiB/s idle", "events/s"]
        + ["MiB/s of events", "cores", "RSS, GiB"]
    ]
    for kind in SHOWN:
        asked = ask(kind, samples)
        lines.append(
            [
                kind.name,
                f"{asked.watches:,.0f}",
                f"{asked.connections:,.0f}",
                f"{asked.requests:,.0f}",
                f"{asked.idle_mib:,.1f}",
                f"{asked.events:,.0f}",
                f"{asked.event_mib:,.2f}",
                f"{asked.cores:,.2f}",
                f"{asked.rss_gib:,.1f}",
            ]
        )
    return align(lines)


def section(samples: Mapping[str, Mapping[str, Mapping[int, Figures]]]) -> str:
    """What it says of a run, as Markdown: nothing unless the fleet was measured."""
    rounds = samples.get("scale-fleet", {})
    first = {name: figures[min(figures)] for name, figures in rounds.items() if figures}
    fleet = table(first)
    if fleet is None:
        return ""
    head = f"### {HOSTS:,} hosts on one etcd, calculated"
    lazy, eager = event_kib(LAZY, first) * 1024, event_kib(EAGER, first) * 1024
    told_us = event_cpu(LAZY, first) * 1e6
    polled = first[TEN.name]["ranges_s"]
    asked_us = (first[TEN.name]["busy"] - first[NOBODY.name]["busy"]) / 100 / polled * 1e6
    asked_kib = first[TEN.name]["wire_kib_s"] / polled
    text = (
        f"{SERVICES:,} services, {scale_fleet.ENDPOINTS} instances of each, {USED} used by each host, "
        f"{CHANGES} changes a second. From the figures above: an event to one host takes "
        f"{lazy:.0f} bytes ({eager:.0f} to an eager one) and {told_us:.0f} us of etcd's CPU; a question "
        f"of one who polls {asked_kib:.1f} KiB and {asked_us:.0f} us."
    )
    return f"{head}\n\n{text}\n\n{fleet}\n"
