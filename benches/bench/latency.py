"""Cases that ask how long a call takes: at half load, over a distance, past a dead endpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from bench import backends, kernel, load, network, tool
from bench.case import MESSAGE, Case
from bench.metric import Metric
from bench.process import Failed
from bench.proxies import Proxy
from bench.site import Site, check_connections


CONNECTIONS = 8
"""From the load to the proxy."""


@dataclass(frozen=True)
class Half(Case):
    """Calls at half the rate that the proxy can take, by a schedule that waits for no answer."""

    metrics: tuple[Metric, ...] = (
        Metric("rate", "calls/s", spread=True),
        Metric("p50_us", "p50, us", spread=True, ratio=True),
        Metric("p99_us", "p99, us", spread=True, ratio=True),
        Metric("p999_us", "p99.9, us", spread=True, ratio=True),
        Metric("busy", "its core busy, %"),
        Metric("late_p99_us", "load itself late, p99, us"),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """Finds the rate with 8 x 32 calls in flight, and halves it."""
        with site.running(self.mode, MESSAGE) as running:
            request = site.folder() / "request"
            request.write_bytes(backends.message(MESSAGE))
            shape = load.Shape(CONNECTIONS, 32, request, MESSAGE)
            most = load.estimate(running.url, shape, site.seconds / 3, site.load_cores)
            schedule = (f"--rate={most / 2}", f"--seconds={site.seconds}")
            work = tool.Work(CONNECTIONS, MESSAGE, MESSAGE)
            cpu = kernel.cpu_seconds(running.pid)
            outcome = tool.calls(site, running, work, schedule).check()
            cpu = kernel.cpu_seconds(running.pid) - cpu
            running.server.check_alive()
            return {
                "calls": outcome.calls,
                "rate": most / 2,
                "mean_us": outcome.mean_us,
                "p50_us": outcome.p50_us,
                "p99_us": outcome.p99_us,
                "p999_us": outcome.p999_us,
                "max_us": outcome.max_us,
                "late_p99_us": outcome.late_p99_us,
                "busy": cpu / outcome.seconds * 100,
            }


@dataclass(frozen=True)
class Distance(Case):
    """Endpoints that are 1 ms away: what it is worth to be connected already."""

    rate: float = 400
    base = "pillion, warm"
    compared = ("pillion", "envoy")
    metrics: tuple[Metric, ...] = (
        Metric("p50_us", "p50, us", spread=True, ratio=True),
        Metric("p99_us", "p99, us", spread=True, ratio=True),
        Metric("mean_us", "mean, us", spread=True),
        Metric("opens_per_call", "upstream connections a call", digits=3),
    )

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """A row for each way of connecting."""
        return [
            dataclasses.replace(
                proxy,
                name=f"{proxy.name}, {mode}",
                program=proxy.program or proxy.name,
                modes={mode: proxy.modes[mode]},
            )
            for proxy in proxies
            for mode in ("warm", "pooled", "fresh")
            if proxy.name in self.compared and mode in proxy.modes
        ]

    def measure(self, site: Site) -> dict[str, float]:
        """Calls at a rate that keeps nobody busy."""
        (mode,) = site.proxy.modes
        work = tool.Work(CONNECTIONS, MESSAGE, MESSAGE)
        with contextlib.ExitStack() as stack:
            ports = stack.enter_context(site.backends(MESSAGE))
            relays = stack.enter_context(tool.far_away(site, ports, 1))
            running = stack.enter_context(site.start(mode, relays))
            running.check_a_call()
            schedule = (f"--rate={self.rate}", f"--seconds={site.seconds + 0.5}")
            # The first quarter of a second is for connecting.
            opens = network.passive_opens()
            skip = f"--skip={int(self.rate / 4)}"
            outcome = tool.calls(site, running, work, (*schedule, skip)).check()
            opens = network.passive_opens() - opens - work.connections
            running.server.check_alive()
            # A connection through a relay is accepted twice.
            opens /= 2
            check_connections(mode, int(opens), outcome.calls, CONNECTIONS, site.isolated)
            return {
                "calls": outcome.calls,
                "p50_us": outcome.p50_us,
                "p99_us": outcome.p99_us,
                "mean_us": outcome.mean_us,
                "opens_per_call": opens / outcome.calls,
            }


@dataclass(frozen=True)
class Endpoints(Case):
    """One of three endpoints is dead, of either kind, and nobody has told the proxy."""

    mode: str = "fresh"
    skip: int = 100
    """First calls, in which a proxy may learn of it."""
    metrics: tuple[Metric, ...] = (
        Metric("alive_p99_us", "all alive: p99, us", spread=True, ratio=True),
        Metric("refused_p99_us", "one refuses: p99, us", spread=True, ratio=True),
        Metric("refused_times", "times all alive", digits=2, spread=True),
        Metric("refused_failed", "calls failed, %", digits=2),
        Metric("silent_p99_us", "one is silent: p99, us", spread=True, ratio=True),
        Metric("silent_times", "times all alive", digits=2, spread=True),
        Metric("silent_failed", "calls failed, %", digits=2),
    )

    def measure(self, site: Site) -> dict[str, float]:
        """The same calls three times, each with a new process of the proxy."""
        with site.backends(MESSAGE, count=3) as alive, refusing() as dead, silent() as black_hole:
            all_alive = self._calls(site, alive)
            if all_alive.ok != all_alive.calls:
                raise Failed(f"calls failed with all alive: {all_alive.wrong}")
            refused = self._calls(site, [dead, *alive[1:]])
            unanswered = self._calls(site, [black_hole, *alive[1:]])
        return {
            "alive_p99_us": all_alive.p99_us,
            "refused_p99_us": refused.p99_us,
            "refused_times": refused.p99_us / all_alive.p99_us,
            "refused_failed": (1 - refused.ok / refused.calls) * 100,
            "silent_p99_us": unanswered.p99_us,
            "silent_times": unanswered.p99_us / all_alive.p99_us,
            "silent_failed": (1 - unanswered.ok / unanswered.calls) * 100,
        }

    def _calls(self, site: Site, ports: list[int]) -> tool.Outcome:
        # Eight at a time. Some may first wait a second for the silent one.
        with site.start("endpoints", ports) as running:
            opens = network.passive_opens()
            work = tool.Work(CONNECTIONS, MESSAGE, MESSAGE)
            extra = (f"--skip={self.skip}", f"--seconds={site.seconds / 2 + 1}")
            outcome = tool.calls(site, running, work, extra)
            opens = network.passive_opens() - opens - CONNECTIONS
            # A connection may be made ahead or for a call that then fails, a few in a hundred.
            few = outcome.calls // 50 + CONNECTIONS
            check_connections("fresh", opens, outcome.ok, few, site.isolated)
            running.server.check_alive()
            return outcome


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port that refuses connections, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that never answers: what is sent to it is dropped."""
    with refusing() as port, network.dropping(port):
        with contextlib.suppress(TimeoutError):
            socket.create_connection(("127.0.0.1", port), timeout=0.05).close()
        yield port
