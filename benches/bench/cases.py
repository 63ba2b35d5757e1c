"""What is measured. A new case is a line in `CASES`; a new kind of case a class beside its kin.

`cli` calls `measure` once for each case, proxy and round. Every measurement starts from nothing:
a network of its own, new backends, a new process of the proxy. What it returns has been checked;
what cannot be trusted is raised as `Failed` and never becomes a figure.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.case import Case
from bench.latency import Distance, Endpoints, Half
from bench.proxies import Proxy
from bench.registry import Registry
from bench.resources import Held, Idle, Start, Streams
from bench.scale import Flood, ManyServices, Workers
from bench.scale import Endpoints as ManyEndpoints
from bench.scale_fleet import Fleet
from bench.site import Site
from bench.throughput import Load, Messages, Services

KIB, MIB = 1 << 10, 1 << 20
# Memory is the same in each round but for a page or two.
FEW = 3

CASES: list[Case] = [
    Load("pooled-8x32", "Shared upstream connections, 8 connections x 32 calls"),
    Load("pooled-1x1", "The same, one call at a time", connections=1, streams=1),
    Load("pooled-64x1", "The same, 64 connections x 1 call", connections=64, streams=1),
    Load("pooled-unpinned", "The same, 8 x 32, on whichever core", pinned=False),
    Load("fresh-8x32", "A new upstream connection for each call, 8 x 32", "fresh"),
    Load("fresh-1x1", "The same, one call at a time", "fresh", connections=1, streams=1),
    Load("fresh-64x1", "The same, 64 x 1", "fresh", connections=64, streams=1),
    Load("warm-8x32", "The same, connected ahead, 8 x 32", "warm"),
    Load("warm-1x1", "Connected ahead, one call at a time", "warm", connections=1, streams=1),
    Load("warm-64x1", "Connected ahead, 64 x 1", "warm", connections=64, streams=1),
    Load("tls-8x32", "TLS on both sides, shared connections, 8 x 32", "tls", tls=True),
    Load("tls-fresh-8x32", "TLS on both sides, a new upstream connection for each call", "tls-fresh", tls=True),
    Load("policy-8x32", "All traffic policy at work, beside the default, 8 x 32", "policy"),
    Half("half", "Latency at half of what each can take, shared connections"),
    Distance("distance", "Endpoints 1 ms away, 400 calls a second"),
    Endpoints("endpoints", "One of three endpoints is dead, a new connection for each call"),
    Messages("64k-up", "Messages of 64 KiB to the server", request=64 * KIB),
    Messages("64k-down", "Messages of 64 KiB from the server", response=64 * KIB),
    Messages("4m-up", "Messages of 4 MiB to the server", request=4 * MIB, streams=1),
    Messages("4m-down", "Messages of 4 MiB from the server", response=4 * MIB, streams=1),
    Services("services", "1,000 services called in turn, shared connections, 8 x 32"),
    Start("start", "Start"),
    Idle("idle", "Memory and CPU of an idle proxy", rounds=FEW),
    Held("memory-1000", "Memory with 1,000 client connections", rounds=FEW),
    Streams("streams-10000", "Memory with 10,000 open streams, and after them", rounds=FEW),
    Registry("registry-eager", "100,000 records, all of them read at the start", "eager", FEW),
    Registry("registry-lazy", "The same registry, a service read when it is called", "lazy", FEW),
    Workers("scale-workers", "One worker and two, on two cores, 8 x 32", rounds=FEW),
    Flood("scale-flood", "500 calls a second beside a flood", rounds=FEW),
    ManyEndpoints("scale-endpoints", "A service of many endpoints", rounds=FEW),
    ManyServices("scale-services", "Many services", rounds=1),
    Fleet("scale-fleet", "200 hosts on one etcd", rounds=1),
]


def measure(
    case: Case, proxy: Proxy, program: str, cores: tuple[int, int], seconds: float
) -> dict[str, float]:
    """Figures of one proxy in one case, with everything started anew on the two cores."""
    proxy_core, load_core = map(str, cores)
    with tempfile.TemporaryDirectory(prefix="pillion-bench-") as folder:
        return case.measure(Site(proxy, program, proxy_core, load_core, seconds, Path(folder)))
