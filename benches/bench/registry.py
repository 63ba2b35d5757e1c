"""A large registry: how soon pillion has read it, what that takes, and how soon it follows it.

100,000 records of 10,000 services under one prefix, in Kratos' layout. One more service, `probe`,
has one endpoint, which is moved between two servers again and again while every second 1,000 of
the other records change. What is timed is the way from sending the put to etcd to the first call
answered by the server that it names: etcd's commit, the watch, the new set, the pick, the call.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from bench import backends, etcd, kernel, load, network
from bench.h2client import Connection
from bench.case import Case
from bench.metric import Metric
from bench.process import Failed, Server
from bench.proxies import PILLION, Proxy
from bench.site import Site

SERVICES, ENDPOINTS = 10_000, 10
CHANGES_PER_SECOND = 1_000
MOVES = 200
"""Moves of the probe in a measurement: p99 is the second worst of them."""
LENGTHS = (133, 134)
"""Bytes of an answer of the one and of the other server: that tells them apart."""

CONFIGURATION = """
workers = 1
[[listener]]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:{admin}"
[[source]]
endpoints = ["http://127.0.0.1:{etcd}"]
prefix = "/microservices"
format = "kratos"
mode = "{mode}"
[defaults]
connection = "{connection}"
"""
"""Of a proxy whose services are in an etcd, where `record` is what one of them is."""


@dataclass(frozen=True)
class Registry(Case):
    """A large registry, read as a whole (`eager`) or as services are called (`lazy`)."""

    metrics: tuple[Metric, ...] = (
        Metric("ready_s", "start to ready, s", digits=2, spread=True),
        Metric("rss_mib", "RSS when ready, MiB", digits=1, spread=True),
        Metric("rss_after_mib", "RSS after the changes, MiB", digits=1),
        Metric("move_p50_ms", "put to routed, p50, ms", digits=1),
        Metric("move_p99_ms", "p99, ms", digits=1, spread=True),
        Metric("busy", "its core busy meanwhile, %"),
    )

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """Nobody else reads such a registry."""
        return [proxy for proxy in proxies if proxy.name == PILLION]

    def measure(self, site: Site) -> dict[str, float]:
        """Fills an etcd, starts pillion on it, and moves the probe while the registry changes."""
        with contextlib.ExitStack() as stack:
            scratch = site.folder()
            servers = [
                stack.enter_context(site.backends(length, count=1))[0] for length in LENGTHS
            ]
            store = stack.enter_context(etcd.running(site.load_cores, scratch))
            count = etcd.fill(store, records())
            if count != SERVICES * ENDPOINTS:
                raise Failed(f"{count} records")
            writer = stack.enter_context(contextlib.closing(etcd.Writer(store)))
            writer.put(*record("probe", 0, f"127.0.0.1:{servers[0]}"))

            port, admin = network.free_port(), network.free_port()
            config = scratch / "pillion.toml"
            config.write_text(
                CONFIGURATION.format(
                    port=port, admin=admin, etcd=store, mode=self.mode, connection="pooled"
                )
            )
            started = time.monotonic()
            command = [site.program, "run", "-c", str(config)]
            proxy = stack.enter_context(Server(command, site.proxy_cores, scratch / "pillion.log"))
            wait_until_ready(proxy, admin)
            ready = time.monotonic() - started
            memory = kernel.memory(proxy.pid)

            calls = Connection(port, "probe", backends.PATH)
            stack.callback(calls.close)
            if calls.call(backends.message(LENGTHS[0])) != LENGTHS[0]:
                raise Failed("the probe is not answered by the server that it names")
            changing = [record(f"svc-{n:05}", 0, address(n, 99)) for n in range(SERVICES)]
            with etcd.churn(store, changing, CHANGES_PER_SECOND):
                cpu, began = kernel.cpu_seconds(proxy.pid), time.monotonic()
                times = sorted(move(writer, calls, servers, n + 1) for n in range(MOVES))
                cpu = kernel.cpu_seconds(proxy.pid) - cpu
                busy = cpu / (time.monotonic() - began)
            proxy.check_alive()
            return {
                "ready_s": ready,
                "rss_mib": memory.rss,
                "rss_after_mib": kernel.memory(proxy.pid).rss,
                "move_p50_ms": load.percentile(times, 0.5) * 1e3,
                "move_p99_ms": load.percentile(times, 0.99) * 1e3,
                "busy": busy * 100,
            }


def move(writer: etcd.Writer, calls: Connection, servers: list[int], number: int) -> float:
    """Moves the probe to the other server; seconds until a call is answered by it."""
    # As far apart as the changes of a busy registry, at no fixed distance to its ticks.
    time.sleep(0.011 + number % 7 * 0.003)
    to = number % 2
    body = backends.message(LENGTHS[0])
    began = time.monotonic()
    writer.put(*record("probe", 0, f"127.0.0.1:{servers[to]}"))
    while calls.call(body) != LENGTHS[to]:
        if time.monotonic() > began + 5:
            raise Failed("the probe was not followed within 5 s")
    return time.monotonic() - began


def records() -> Iterator[tuple[str, str]]:
    """All records but the probe's."""
    for service in range(SERVICES):
        for endpoint in range(ENDPOINTS):
            yield record(f"svc-{service:05}", endpoint, address(service, endpoint))


def record(service: str, endpoint: int, where: str) -> tuple[str, str]:
    """One registration as Kratos writes it: key and value."""
    instance = f"{service}-{endpoint:08}"
    value = {
        "id": instance,
        "name": service,
        "version": "v1.4.2",
        "metadata": {"zone": "eu-west-1a", "weight": "100"},
        "endpoints": [f"http://{where}", f"grpc://{where}"],
    }
    return f"/microservices/{service}/{instance}", json.dumps(value, separators=(",", ":"))


def address(service: int, endpoint: int) -> str:
    """Where nothing listens; nobody calls these services."""
    return f"10.{service >> 8}.{service & 255}.{endpoint + 1}:9000"


def wait_until_ready(proxy: Server, admin: int) -> None:
    """Returns once every source has been read."""
    limit = time.monotonic() + 60
    while True:
        proxy.check_alive()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=5):
                return
        except (urllib.error.HTTPError, OSError) as error:
            if time.monotonic() > limit:
                raise Failed(f"not ready: {error}") from error
            time.sleep(0.01)
