"""Cases that ask what the proxy takes while little or nothing is done: memory, CPU, starting."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from bench import backends, kernel, network, tool
from bench.case import MESSAGE, Case
from bench.metric import Metric
from bench.process import Failed
from bench.site import Site


@dataclass(frozen=True)
class Start(Case):
    """From starting the program to the first call answered."""

    metrics: tuple[Metric, ...] = (
        Metric("start_ms", "start to first answer, ms", digits=1, spread=True, ratio=True),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Tries to call it from its first moment on."""
        with site.backends(MESSAGE) as ports, site.start(self.mode, ports) as running:
            running.check_a_call()
            return {"start_ms": (time.monotonic() - running.server.started) * 1e3}


@dataclass(frozen=True)
class Idle(Case):
    """Memory of a proxy that has not seen a call, and CPU of one that has and waits for more."""

    settle: float = 1.0
    """Seconds left to it after its start, and after the call."""
    metrics: tuple[Metric, ...] = (
        Metric("pss_mib", "PSS, MiB", digits=1, spread=True, ratio=True),
        Metric("rss_mib", "RSS, MiB", digits=1),
        Metric("idle_us", "CPU a second, us", spread=True, ratio=True),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Reads its memory, makes a call, and looks at it while the connection stays open."""
        with site.backends(MESSAGE) as ports, site.start(self.mode, ports) as running:
            time.sleep(self.settle)
            memory = kernel.memory(running.pid)
            running.check_a_call()
            with contextlib.closing(running.connect()) as connection:
                connection.call(backends.message(MESSAGE))
                time.sleep(self.settle)
                cpu, began = kernel.exact_cpu_seconds(running.pid), time.monotonic()
                time.sleep(max(site.seconds, 1))
                cpu = kernel.exact_cpu_seconds(running.pid) - cpu
                idle = cpu / (time.monotonic() - began)
        return {"pss_mib": memory.pss, "rss_mib": memory.rss, "idle_us": idle * 1e6}


@dataclass(frozen=True)
class Held(Case):
    """Memory that client connections cost. Each has made one call and stays open."""

    connections: int = 1000
    metrics: tuple[Metric, ...] = (
        Metric("pss_mib", "PSS, MiB", digits=1, spread=True, ratio=True),
        Metric("rss_mib", "RSS, MiB", digits=1),
        Metric("growth_kib", "growth a connection, KiB", digits=1, spread=True, ratio=True),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Reads its memory after one call, opens the connections, and reads it again."""
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(site.running(self.mode, MESSAGE))
            before = kernel.memory(running.pid)
            for _ in range(self.connections):
                connection = running.connect()
                stack.callback(connection.close)
                length = connection.call(backends.message(MESSAGE))
                if length != MESSAGE:
                    raise Failed(f"an answer of {length} bytes instead of {MESSAGE}")
            after = kernel.memory(running.pid)
        growth = (after.pss - before.pss) * 1024 / self.connections
        return {"pss_mib": after.pss, "rss_mib": after.rss, "growth_kib": growth}


@dataclass(frozen=True)
class Streams(Case):
    """Memory that open streams cost, and how much of it is given back when they have ended."""

    connections: int = 100
    streams: int = 100
    """On each connection: the least that any of the proxies allows by default."""
    settle: float = 3.0
    """Seconds left to it after the end of the streams."""
    metrics: tuple[Metric, ...] = (
        Metric("before_mib", "PSS before, MiB", digits=1),
        Metric("open_mib", "with the streams, MiB", digits=1, spread=True, ratio=True),
        Metric("growth_kib", "growth a stream, KiB", digits=2, spread=True, ratio=True),
        Metric("after_mib", "3 s after, MiB", digits=1, spread=True, ratio=True),
        Metric("given_back", "given back, %"),
        Metric("opens", "upstream connections"),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Each stream has sent its message and waits for its end; then all get their answers."""
        work = tool.Work(self.connections, MESSAGE, MESSAGE)
        count = self.connections * self.streams
        with contextlib.ExitStack() as stack:
            # By default it lets 100 calls onto a connection.
            extra = (f"--max-concurrent-streams={2 * count}",)
            ports = stack.enter_context(site.backends(MESSAGE, extra=extra))
            running = stack.enter_context(site.start(self.mode, ports))
            running.check_a_call()
            opens = network.passive_opens()
            held = stack.enter_context(tool.Held(site, running, work, self.streams))
            held.reach("connected")
            before = kernel.memory(running.pid)
            held.reach("open")
            # The proxy may still be busy with what it has been sent.
            network.wait_until_quiet()
            peak = kernel.memory(running.pid)
            opens = network.passive_opens() - opens - self.connections
            held.reach("answered")
            held.leave()
            time.sleep(self.settle)
            after = kernel.memory(running.pid)
            running.server.check_alive()
        grown = peak.pss - before.pss
        return {
            "before_mib": before.pss,
            "open_mib": peak.pss,
            "growth_kib": grown * 1024 / count,
            "after_mib": after.pss,
            "given_back": (peak.pss - after.pss) / grown * 100 if grown > 0 else 0.0,
            "opens": opens,
        }
