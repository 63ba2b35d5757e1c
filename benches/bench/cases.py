"""What is measured. To add a case, add it to `CASES`, or a class beside `Load` for a new kind.

`cli` calls `measure` once for each case, proxy and round. Every measurement starts from nothing:
a network of its own, new backends, a new process of the proxy. What it returns has been checked;
what cannot be trusted is raised as `Failed` and never becomes a figure.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import backends, kernel, load, network, proxies
from bench.h2client import Connection
from bench.metric import Metric
from bench.process import START_LIMIT, Failed, Server
from bench.proxies import Proxy
from bench.registry import Registry

MESSAGE = 133
"""Bytes of a gRPC message, both ways, its prefix of five included."""


@dataclass(frozen=True)
class Running:
    """What a case finds running."""

    proxy: Server
    port: int
    load_core: int
    seconds: float
    """How long the measured part should take."""
    isolated: bool
    """Whether the network holds nothing but this measurement."""
    scratch: Path

    def connect(self) -> Connection:
        """A client connection to the proxy."""
        return Connection(self.port, "bench", backends.PATH)

    def check_a_call(self) -> None:
        """Returns once a call through the proxy is answered as the backends answer."""
        limit = time.monotonic() + START_LIMIT
        while True:
            self.proxy.check_alive()
            reason = _try_a_call(self)
            if reason is None:
                return
            if time.monotonic() > limit:
                raise Failed(f"no call gets through: {reason}")
            time.sleep(0.05)


@dataclass(frozen=True)
class Load:
    """Calls as fast as the proxy takes them, from connections that each keep some in flight."""

    name: str
    title: str
    mode: str
    connections: int
    streams: int
    message: int = MESSAGE
    metrics = (
        Metric("calls_per_second", "calls/s", spread=True, ratio=True),
        Metric("cpu_us", "CPU a call, us", digits=1, spread=True, ratio=True),
        Metric("busy", "its core busy, %"),
        Metric("mean_us", "mean, us", spread=True, ratio=True),
        Metric("p50_us", "p50, us"),
        Metric("p99_us", "p99, us", spread=True),
        Metric("opens_per_call", "upstream connections a call", digits=3),
        Metric("pss_mib", "PSS after, MiB", digits=1),
    )

    def measure(self, running: Running) -> dict[str, float]:
        """Warms up, then makes a fixed number of calls between two readings of the kernel."""
        running.check_a_call()
        request = running.scratch / "request"
        request.write_bytes(backends.message(self.message))
        shape = load.Shape(self.connections, self.streams, request, self.message)
        url = f"http://127.0.0.1:{running.port}{backends.PATH}"
        core = running.load_core

        rate = load.estimate(url, shape, running.seconds / 2, core)
        in_flight = self.connections * self.streams
        calls = max(int(rate * running.seconds), in_flight)

        opens, cpu = network.passive_opens(), kernel.cpu_seconds(running.proxy.pid)
        outcome = load.run(url, shape, calls, core)
        cpu = kernel.cpu_seconds(running.proxy.pid) - cpu
        opens = network.passive_opens() - opens - self.connections
        check_connections(self.mode, opens, calls, in_flight, running.isolated)

        memory = kernel.memory(running.proxy.pid)
        times = load.latencies(url, shape, max(calls // 4, in_flight), core, running.scratch)
        running.proxy.check_alive()
        return {
            "calls": calls,
            "seconds": outcome.seconds,
            "calls_per_second": outcome.calls_per_second,
            "cpu_us": cpu / calls * 1e6,
            "busy": cpu / outcome.seconds * 100,
            "mean_us": outcome.mean,
            "max_us": outcome.max,
            "p50_us": load.percentile(times, 0.5),
            "p99_us": load.percentile(times, 0.99),
            "opens_per_call": opens / calls,
            "rss_mib": memory.rss,
            "pss_mib": memory.pss,
        }


@dataclass(frozen=True)
class Idle:
    """Memory of a proxy that has started and not seen a call."""

    name: str
    title: str
    mode: str = "pooled"
    message: int = MESSAGE
    settle: float = 1.0
    """Seconds left to it after its start."""
    metrics = (
        Metric("pss_mib", "PSS, MiB", digits=1, spread=True, ratio=True),
        Metric("rss_mib", "RSS, MiB", digits=1),
    )

    def measure(self, running: Running) -> dict[str, float]:
        """Reads its memory, then sees that it was ready indeed."""
        time.sleep(self.settle)
        memory = kernel.memory(running.proxy.pid)
        running.check_a_call()
        return {"pss_mib": memory.pss, "rss_mib": memory.rss}


@dataclass(frozen=True)
class Held:
    """Memory that client connections cost. Each has made one call and stays open."""

    name: str
    title: str
    connections: int
    mode: str = "pooled"
    message: int = MESSAGE
    metrics = (
        Metric("pss_mib", "PSS, MiB", digits=1, spread=True, ratio=True),
        Metric("rss_mib", "RSS, MiB", digits=1),
        Metric("growth_kib", "growth a connection, KiB", digits=1, spread=True, ratio=True),
    )

    def measure(self, running: Running) -> dict[str, float]:
        """Reads its memory after one call, opens the connections, and reads it again."""
        running.check_a_call()
        before = kernel.memory(running.proxy.pid)
        with contextlib.ExitStack() as held:
            for _ in range(self.connections):
                connection = running.connect()
                held.callback(connection.close)
                length = connection.call(backends.message(self.message))
                if length != self.message:
                    raise Failed(f"an answer of {length} bytes instead of {self.message}")
            after = kernel.memory(running.proxy.pid)
        growth = (after.pss - before.pss) * 1024 / self.connections
        return {"pss_mib": after.pss, "rss_mib": after.rss, "growth_kib": growth}


CASES = [
    Load("pooled-8x32", "Shared upstream connections, 8 connections x 32 calls", "pooled", 8, 32),
    Load("pooled-1x1", "Shared upstream connections, one call at a time", "pooled", 1, 1),
    Load("fresh-8x32", "A new upstream connection for each call, 8 x 32", "fresh", 8, 32),
    Load("policy-8x32", "All traffic policy at work, beside the default, 8 x 32", "policy", 8, 32),
    Load("warm-8x32", "The same, connected ahead, 8 x 32", "warm", 8, 32),
    Idle("memory-idle", "Memory of an idle proxy"),
    Held("memory-1000", "Memory with 1,000 client connections", connections=1000),
    Registry("registry-eager", "100,000 records, all of them read at the start", "eager"),
    Registry("registry-lazy", "The same registry, a service read when it is called", "lazy"),
]


def able(case: Load | Idle | Held | Registry, proxy: Proxy) -> bool:
    """Whether a proxy can take part in a case."""
    return case.able(proxy) if isinstance(case, Registry) else case.mode in proxy.modes


def measure(
    case: Load | Idle | Held | Registry,
    proxy: Proxy,
    program: str,
    cores: tuple[int, int],
    seconds: float,
) -> dict[str, float]:
    """Figures of one proxy in one case, with everything started anew on the two cores."""
    if isinstance(case, Registry):
        return case.measure(proxy, program, cores, seconds)
    isolated = network.isolate()
    proxy_core, load_core = cores
    with tempfile.TemporaryDirectory(prefix="pillion-bench-") as folder:
        scratch = Path(folder)
        with backends.running(case.message, load_core, scratch) as ports:
            with proxies.start(proxy, program, case.mode, ports, proxy_core, scratch) as started:
                server, port = started
                return case.measure(
                    Running(server, port, load_core, seconds, isolated, scratch)
                )


def check_connections(mode: str, opens: int, calls: int, in_flight: int, isolated: bool) -> None:
    """Raises `Failed` unless the backends accepted as many connections as the mode means."""
    if mode in ("pooled", "policy"):
        # Even a proxy that does not multiplex needs no more than one for each call in flight.
        least, most = 0, 2 * in_flight
    else:
        # Connections opened for calls of the warming up that were cancelled, and with `warm`
        # those opened ahead, may be used by the run; as many may be left over by it.
        ahead = in_flight + (1024 if mode == "warm" else 0)
        least, most = calls - ahead, calls * 1.01 + ahead
    if opens < least or (isolated and opens > most):
        raise Failed(f"{mode}, but {calls} calls made {opens} upstream connections")


def _try_a_call(running: Running) -> str | None:
    """Makes one call on a connection of its own; says what was wrong, if anything."""
    try:
        with contextlib.closing(running.connect()) as connection:
            length = connection.call(backends.message(MESSAGE))
    except OSError as error:
        return str(error)
    return None if length > 0 else "the answer has no body"
