"""Cases that make as many calls as the proxy takes: small, large, and to many services."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from bench import backends, kernel, load, network, tool
from bench.case import MESSAGE, Case
from bench.metric import Metric
from bench.process import Failed
from bench.site import Running, Site, check_connections


@dataclass(frozen=True)
class Load(Case):
    """Calls as fast as the proxy takes them, from connections that each keep some in flight."""

    connections: int = 8
    streams: int = 32
    tls: bool = False
    """Client, proxy and backends speak TLS."""
    pinned: bool = True
    """The proxy on one core, load and backends on the other. If not, everything goes where the
    kernel puts it, and the proxy has a worker for each core."""
    metrics: tuple[Metric, ...] = (
        Metric("calls_per_second", "calls/s", spread=True, ratio=True),
        Metric("cpu_us", "CPU a call, us", digits=1, spread=True, ratio=True),
        Metric("busy", "its core busy, %"),
        Metric("mean_us", "mean, us", spread=True, ratio=True),
        Metric("p50_us", "p50, us"),
        Metric("p99_us", "p99, us", spread=True),
        Metric("opens_per_call", "upstream connections a call", digits=3),
        Metric("pss_mib", "PSS after, MiB", digits=1),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Warms up, then makes a fixed number of calls between two readings of the kernel."""
        workers, site = 1, dataclasses.replace(site, tls=self.tls)
        if not self.pinned:
            everywhere = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            site = dataclasses.replace(site, proxy_cores=everywhere, load_cores=everywhere)
            workers = everywhere.count(",") + 1
        with site.backends(MESSAGE) as ports:
            with site.start(self.mode, ports, workers=workers) as running:
                running.check_a_call()
                return self._load(site, running)

    def _load(self, site: Site, running: Running) -> dict[str, float]:
        request = _request(site, MESSAGE)
        shape = load.Shape(
            self.connections, self.streams, request, MESSAGE, site.certificates
        )
        url, cores = running.url, site.load_cores
        in_flight = self.connections * self.streams
        rate = load.estimate(url, shape, site.seconds / 3, cores)
        calls = max(int(rate * site.seconds), in_flight)

        opens, cpu = network.passive_opens(), kernel.cpu_seconds(running.pid)
        outcome = load.run(url, shape, calls, cores)
        cpu = kernel.cpu_seconds(running.pid) - cpu
        opens = network.passive_opens() - opens - self.connections
        check_connections(self.mode, opens, calls, in_flight, site.isolated)

        memory = kernel.memory(running.pid)
        times = load.latencies(url, shape, max(calls // 6, in_flight), cores, site.folder())
        running.server.check_alive()
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
class Messages(Case):
    """Large messages: how many bytes a second, and what a MiB costs."""

    request: int = MESSAGE
    response: int = MESSAGE
    connections: int = 4
    streams: int = 4
    metrics: tuple[Metric, ...] = (
        Metric("mib_per_second", "MiB/s", spread=True, ratio=True),
        Metric("cpu_us", "CPU a MiB, us", spread=True, ratio=True),
        Metric("busy", "its core busy, %"),
        Metric("mean_us", "mean of a call, us"),
        Metric("pss_mib", "PSS after, MiB", digits=1),
    )
    # As large as gRPC servers let theirs grow: else the backend's window is what is measured.
    windows = ("--window-bits=20", "--connection-window-bits=22")

    def measure(self, site: Site) -> dict[str, float]:
        """As `Load`; what was sent has crossed the loopback twice, or it was not."""
        with site.backends(self.response, extra=self.windows) as ports:
            with site.start(self.mode, ports) as running:
                running.check_a_call()
                return self._load(site, running)

    def _load(self, site: Site, running: Running) -> dict[str, float]:
        request = _request(site, self.request)
        shape = load.Shape(self.connections, self.streams, request, self.response)
        in_flight = self.connections * self.streams
        # By number, not by time: in a short time not one of 4 MiB may come to its end.
        few = max(2 * in_flight, 32 * 2**20 // (self.request + self.response))
        rate = load.run(running.url, shape, few, site.load_cores).calls_per_second
        calls = max(int(rate * site.seconds / 2), in_flight)

        crossed, cpu = network.loopback_bytes(), kernel.cpu_seconds(running.pid)
        outcome = load.run(running.url, shape, calls, site.load_cores)
        cpu = kernel.cpu_seconds(running.pid) - cpu
        crossed = network.loopback_bytes() - crossed
        payload = calls * (self.request + self.response)
        if crossed < 2 * payload:
            raise Failed(f"{payload} bytes through the proxy, but {crossed} on the network")
        running.server.check_alive()
        mib = payload / 2**20
        return {
            "calls": calls,
            "seconds": outcome.seconds,
            "mib_per_second": mib / outcome.seconds,
            "cpu_us": cpu / mib * 1e6,
            "busy": cpu / outcome.seconds * 100,
            "mean_us": outcome.mean,
            "pss_mib": kernel.memory(running.pid).pss,
        }


@dataclass(frozen=True)
class Services(Case):
    """Calls to many services in turn, so that none finds what the one before it left."""

    mode: str = "services"
    services: int = 1000
    connections: int = 8
    streams: int = 32
    metrics: tuple[Metric, ...] = (
        Metric("calls_per_second", "calls/s", spread=True, ratio=True),
        Metric("cpu_us", "CPU a call, us", digits=1, spread=True, ratio=True),
        Metric("busy", "its core busy, %"),
        Metric("mean_us", "mean, us"),
        Metric("p99_us", "p99, us", spread=True),
        Metric("opens", "upstream connections"),
        Metric("pss_mib", "PSS after, MiB", digits=1, ratio=True),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Calls each service often enough that all connections are there, then measures."""
        names = tuple(f"svc-{number:04}" for number in range(self.services))
        work = tool.Work(self.connections, MESSAGE, MESSAGE, self.services)
        closed = (f"--streams={self.streams}",)
        with site.backends(MESSAGE) as ports, site.start(self.mode, ports, names) as running:
            running.check_a_call(names[0])
            opens = network.passive_opens()
            tool.calls(site, running, work, (*closed, f"--calls={4 * self.services}")).check()
            outcome = tool.calls(site, running, work, (*closed, f"--seconds={site.seconds / 4}"))
            calls = int(outcome.check().ok / outcome.seconds * site.seconds)

            cpu = kernel.cpu_seconds(running.pid)
            outcome = tool.calls(site, running, work, (*closed, f"--calls={calls}")).check()
            cpu = kernel.cpu_seconds(running.pid) - cpu
            opens = network.passive_opens() - opens - 3 * self.connections
            running.server.check_alive()
            return {
                "calls": calls,
                "seconds": outcome.seconds,
                "calls_per_second": calls / outcome.seconds,
                "cpu_us": cpu / calls * 1e6,
                "busy": cpu / outcome.seconds * 100,
                "mean_us": outcome.mean_us,
                "p99_us": outcome.p99_us,
                "opens": opens,
                "pss_mib": kernel.memory(running.pid).pss,
            }


def _request(site: Site, length: int) -> Path:
    """A file with a message to send."""
    request = site.folder() / "request"
    request.write_bytes(backends.message(length))
    return request
