"""How one proxy takes much of something: workers, a flood, endpoints, services, changes.

Calls go by a schedule where their times are compared, so that what slows one slows what is counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench import etcd, kernel, network, scale_reading, tool
from bench.case import MESSAGE, Case
from bench.metric import Metric
from bench.process import Failed, Server
from bench.proxies import PILLION, Proxy
from bench.registry import CONFIGURATION, record, wait_until_ready
from bench.site import Running, Site
from bench.throughput import Load

CHANGES_PER_SECOND = 1_000
BATCH = 20
"""Of these in a transaction."""
RATE = 500
"""Calls a second where their times are compared: what hardly keeps a proxy busy."""
SETTLE_LIMIT = 15.0


def rows(proxies: list[Proxy], names: list[str]) -> list[Proxy]:
    """pillion once for each name."""
    return [
        dataclasses.replace(proxy, name=name, program=PILLION)
        for proxy in proxies
        if proxy.name == PILLION
        for name in names
    ]


@dataclass(frozen=True)
class Workers(Load):
    """The same load with one worker and with two, on whichever core."""

    pinned: bool = False
    base = "2 workers"

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """A row for each number of workers."""
        return rows(proxies, ["1 worker", "2 workers"])

    def measure(self, site: Site) -> dict[str, float]:
        """As `Load`; all cores are for the proxy, the load and the backends alike."""
        workers = int(site.proxy.name.split()[0])
        everywhere = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        site = dataclasses.replace(site, proxy_cores=everywhere, load_cores=everywhere)
        with site.backends(MESSAGE) as ports, site.start(self.mode, ports, workers=workers) as run:
            run.check_a_call()
            return self._load(site, run)


@dataclass(frozen=True)
class Flood(Case):
    """Calls at a steady rate, while as many as can be are made on other connections."""

    base = "a flood on one connection"
    others = {"alone": (0, 0), "a flood spread over 50": (50, 10), base: (1, 500)}
    metrics: tuple[Metric, ...] = (
        Metric("p50_us", "p50 of the others, us"),
        Metric("p99_us", "p99, us", spread=True, ratio=True),
        Metric("late_p99_us", "load itself late, p99, us"),
        Metric("flood", "calls/s of the flood", spread=True),
        Metric("busy", "its core busy, %"),
    )

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """Without a flood, with a well spread one, and with one on a single connection."""
        return rows(proxies, list(self.others))

    def measure(self, site: Site) -> dict[str, float]:
        """A worker, a flood of 500 calls in flight, and eight connections that are not part of it."""
        connections, streams = self.others[site.proxy.name]
        seconds = max(site.seconds, 2)
        with site.running(self.mode, MESSAGE) as running, contextlib.ExitStack() as stack:
            flood = Flooding(site, running, connections, streams, seconds + 1.5)
            stack.callback(flood.end)
            time.sleep(0.75)
            work = tool.Work(8, MESSAGE, MESSAGE)
            cpu = kernel.cpu_seconds(running.pid)
            schedule = (f"--rate={RATE}", f"--seconds={seconds}", f"--skip={RATE // 10}")
            outcome = tool.calls(site, running, work, schedule).check()
            cpu = kernel.cpu_seconds(running.pid) - cpu
            running.server.check_alive()
            return {
                "p50_us": outcome.p50_us,
                "p99_us": outcome.p99_us,
                "late_p99_us": outcome.late_p99_us,
                "flood": flood.calls_per_second(),
                "busy": cpu / outcome.seconds * 100,
            }


class Flooding:
    """`pillion-load` in the background, as fast as it is answered."""

    def __init__(
        self, site: Site, running: Running, connections: int, streams: int, seconds: float
    ) -> None:
        self._process = None
        if connections:
            work = tool.Work(connections, MESSAGE, MESSAGE)
            command = ["taskset", "-c", site.load_cores, tool.PROGRAM, "calls"]
            command += [*work.arguments(running), f"--streams={streams}", f"--seconds={seconds}"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def calls_per_second(self) -> float:
        """Once it has come to its end; every one of its calls was answered rightly."""
        if self._process is None:
            return 0
        text, _ = self._process.communicate(timeout=tool.LIMIT)
        outcome = tool.Outcome(**json.loads(text)).check()
        return outcome.calls / outcome.seconds

    def end(self) -> None:
        """Ends it, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@dataclass(frozen=True)
class Registered:
    """pillion on an etcd of its own."""

    server: Server
    store: int
    admin: int
    running: Running

    def events(self) -> float:
        """Changes that it has been told of."""
        return scale_reading.read(self.admin).sum("pillion_source_events_total")

    def check_events(self, expected: float) -> None:
        """Returns once it has been told of all changes."""
        limit = time.monotonic() + SETTLE_LIMIT
        while (told := self.events()) < expected:
            if time.monotonic() > limit:
                raise Failed(f"{told:.0f} changes were told instead of {expected:.0f}")
            time.sleep(0.05)


@contextlib.contextmanager
def registered(
    site: Site, records: Iterator[tuple[str, str]], connection: str
) -> Iterator[Registered]:
    """Fills an etcd and starts pillion, which reads all of it."""
    with contextlib.ExitStack() as stack:
        scratch = site.folder()
        store = stack.enter_context(etcd.running(site.load_cores, scratch))
        etcd.fill(store, records)
        port, admin = network.free_port(), network.free_port()
        config = scratch / "pillion.toml"
        text = CONFIGURATION.format(
            port=port, admin=admin, etcd=store, mode="eager", connection=connection
        )
        config.write_text(text)
        command = [site.program, "run", "-c", str(config)]
        server = stack.enter_context(Server(command, site.proxy_cores, scratch / "pillion.log"))
        wait_until_ready(server, admin)
        yield Registered(server, store, admin, Running(server, port))


@dataclass(frozen=True)
class Endpoints(Case):
    """One service with few endpoints and with many: what a call costs, and a change."""

    base = "10,000 endpoints"
    counts = {"100 endpoints": 100, "1,000 endpoints": 1_000, "10,000 endpoints": 10_000}
    metrics: tuple[Metric, ...] = (
        Metric("rss_mib", "RSS, MiB", digits=1, spread=True),
        Metric("cpu_us", "CPU a call, us", digits=1, spread=True, ratio=True),
        Metric("p99_us", "p99 at rest, us", spread=True),
        Metric("changing_p99_us", "with 1,000 changes/s, us", spread=True),
        Metric("changing_max_us", "the longest, us"),
        Metric("changing_busy", "its core busy then, %", spread=True),
        Metric("rss_after_mib", "RSS after, MiB", digits=1),
    )

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """A row for each number."""
        return rows(proxies, list(self.counts))

    def measure(self, site: Site) -> dict[str, float]:
        """A connection for each call. Every endpoint is one backend, under another address."""
        count, seconds = self.counts[site.proxy.name], max(site.seconds, 2)
        anywhere = ("--address=0.0.0.0",)
        with contextlib.ExitStack() as stack:
            (port,) = stack.enter_context(site.backends(MESSAGE, count=1, extra=anywhere))
            records = (endpoint(number, port, 100) for number in range(count))
            proxy = stack.enter_context(registered(site, records, "fresh"))
            listed = json.loads(scale_reading.page(proxy.admin, "/services/bench"))
            if len(listed["endpoints"]) != count:
                raise Failed(f"{len(listed['endpoints'])} endpoints instead of {count}")
            proxy.running.check_a_call()
            work = tool.Work(8, MESSAGE, MESSAGE)
            schedule = (f"--rate={RATE}", f"--seconds={seconds}", f"--skip={RATE // 10}")
            memory, cpu = kernel.memory(proxy.server.pid), kernel.cpu_seconds(proxy.server.pid)
            rest = tool.calls(site, proxy.running, work, schedule).check()
            cpu = kernel.cpu_seconds(proxy.server.pid) - cpu

            changing = [endpoint(n % count, port, 50 + n % 7) for n in range(count * 7)]
            told, spent = proxy.events(), kernel.cpu_seconds(proxy.server.pid)
            with etcd.churn(proxy.store, changing, CHANGES_PER_SECOND, BATCH):
                busy = tool.calls(site, proxy.running, work, schedule).check()
            spent = kernel.cpu_seconds(proxy.server.pid) - spent
            proxy.check_events(told + 0.9 * CHANGES_PER_SECOND * seconds)
            proxy.server.check_alive()
            return {
                "rss_mib": memory.rss,
                "cpu_us": cpu / rest.calls * 1e6,
                "p99_us": rest.p99_us,
                "changing_p99_us": busy.p99_us,
                "changing_max_us": busy.max_us,
                "changing_busy": spent / busy.seconds * 100,
                "rss_after_mib": kernel.memory(proxy.server.pid).rss,
            }


@dataclass(frozen=True)
class ManyServices(Case):
    """Few services and many, all of them called: memory, scrapes, and changes while calls flow."""

    base = "10,000 services"
    counts = {"100 services": 100, "10,000 services": 10_000}
    metrics: tuple[Metric, ...] = (
        Metric("rss_mib", "RSS before calls, MiB", digits=1),
        Metric("rss_called_mib", "after a call to each", digits=1, spread=True),
        Metric("scrape_series", "samples a scrape"),
        Metric("scrape_mib", "MiB", digits=2),
        Metric("scrape_ms", "ms", digits=1, spread=True),
        Metric("p99_us", "p99 at rest, us", spread=True),
        Metric("changing_p99_us", "with 1,000 changes/s, us", spread=True),
        Metric("scraped_p99_us", "and a scrape each second, us", spread=True),
        Metric("scraped_max_us", "the longest, us"),
        Metric("busy", "its core busy then, %"),
        Metric("rss_after_mib", "RSS after, MiB", digits=1),
    )

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """A row for each number."""
        return rows(proxies, list(self.counts))

    def measure(self, site: Site) -> dict[str, float]:
        """Two endpoints a service, shared connections; calls go to all services in turn."""
        count, seconds = self.counts[site.proxy.name], max(site.seconds, 2)
        with contextlib.ExitStack() as stack:
            ports = stack.enter_context(site.backends(MESSAGE))
            records = (two(service, number, ports, 100) for service in range(count) for number in (0, 1))
            proxy = stack.enter_context(registered(site, records, "fresh"))
            pid, work = proxy.server.pid, tool.Work(8, MESSAGE, MESSAGE, count)
            memory = kernel.memory(pid).rss
            tool.calls(site, proxy.running, work, ("--streams=4", f"--calls={count}")).check()
            called = kernel.memory(pid).rss
            times = [timed(proxy.admin) for _ in range(5)]
            text = scale_reading.page(proxy.admin)
            known = scale_reading.Reading(text.decode())
            if known.sum("pillion_requests_total") != count:
                raise Failed(f"{known.sum('pillion_requests_total')} calls are counted")

            schedule = (f"--rate={RATE}", f"--seconds={seconds}", f"--skip={RATE // 10}")
            rest = tool.calls(site, proxy.running, work, schedule).check()
            changing = [two(n % count, 0, ports, 50 + n // count % 2) for n in range(2 * count)]
            told = proxy.events()
            with etcd.churn(proxy.store, changing, CHANGES_PER_SECOND, BATCH):
                busy = tool.calls(site, proxy.running, work, schedule).check()
                cpu = kernel.cpu_seconds(pid)
                with scraping(proxy.admin):
                    scraped = tool.calls(site, proxy.running, work, schedule).check()
                cpu = kernel.cpu_seconds(pid) - cpu
            proxy.check_events(told + 2 * 0.9 * CHANGES_PER_SECOND * seconds)
            proxy.server.check_alive()
            return {
                "rss_mib": memory,
                "rss_called_mib": called,
                "kib_a_service": (called - memory) / count * 1024,
                "scrape_series": known.series(),
                "scrape_mib": len(text) / 2**20,
                "scrape_ms": sorted(times)[len(times) // 2] * 1e3,
                "p99_us": rest.p99_us,
                "changing_p99_us": busy.p99_us,
                "scraped_p99_us": scraped.p99_us,
                "scraped_max_us": scraped.max_us,
                "busy": cpu / scraped.seconds * 100,
                "rss_after_mib": kernel.memory(pid).rss,
            }


@contextlib.contextmanager
def scraping(admin: int) -> Iterator[None]:
    """Scrapes each second, as Prometheus would at its most eager."""
    stop, problems = threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                timed(admin)
                stop.wait(1)
        except OSError as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if problems:
        raise Failed(f"no scrape: {problems[0]}")


def timed(admin: int) -> float:
    """Seconds of a scrape."""
    began = time.monotonic()
    scale_reading.page(admin)
    return time.monotonic() - began


def endpoint(number: int, port: int, weight: int) -> tuple[str, str]:
    """One of the many endpoints of a service: the loopback has 16 million addresses."""
    where = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}:{port}"
    return weighted(record("bench", number, where), weight)


def two(service: int, number: int, ports: list[int], weight: int) -> tuple[str, str]:
    """One of the two endpoints of one of the many services."""
    return weighted(record(f"svc-{service:04}", number, f"127.0.0.1:{ports[number]}"), weight)


def weighted(registration: tuple[str, str], weight: int) -> tuple[str, str]:
    """The same with another weight."""
    key, value = registration
    content = json.loads(value)
    content["metadata"]["weight"] = str(weight)
    return key, json.dumps(content, separators=(",", ":"))
