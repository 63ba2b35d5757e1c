"""What many hosts ask of one etcd: real proxies in their hundreds, or clients that poll.

100 services of 10 records, of which each host uses 20. For each kind of host the same is done: all
of them start and look their services up, nothing happens for some seconds, then records change at a
steady rate. etcd's own counters say what that took, the kernel what it cost. `scale_model` makes of
it what a larger fleet takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import etcd, kernel, network, scale_reading
from bench.case import Case
from bench.h2client import Connection
from bench.metric import Metric
from bench.process import Failed, Server
from bench.proxies import PILLION, Proxy
from bench.registry import CONFIGURATION, address, record
from bench.site import Site

SERVICES, ENDPOINTS, USED = 100, 10, 20
CLIENTS = 200
BATCH = 20
"""Changes in a transaction, where nobody is told of them."""
GROUP = 20
"""Proxies that start at a time."""
FIRST_PORT = 10_000
"""Of the proxies: below those that the kernel gives to connections."""
START_LIMIT = 60.0
SETTLE_LIMIT = 15.0
END_LIMIT = 30.0

REGISTRATION = """
[[register]]
service = "host"
id = "host-{port}"
address = "127.0.0.1:{port}"
[register.health]
kind = "none"
"""


@dataclass(frozen=True)
class Kind:
    """A kind of hosts: a row."""

    name: str
    hosts: int = CLIENTS
    mode: str = "lazy"
    """Of the source; `poll` for hosts that ask instead of being told."""
    every: float = 0
    """Seconds between two questions for one service, where hosts poll."""
    registered: bool = False
    behind: bool = False
    """Whether there is an etcd grpc-proxy between."""
    changes: int = 100
    """Records changed a second. Fewer where each concerns everybody."""

    def watches(self) -> int:
        """What all hosts together watch: their services, and each registration its own key."""
        of_services = {"lazy": self.hosts * USED, "eager": self.hosts, "poll": 0}[self.mode]
        return of_services + self.hosts * self.registered

    def told(self, changes: int) -> int:
        """How often hosts are told of as many changes to each service in turn."""
        each = {"lazy": self.hosts * USED / SERVICES, "eager": self.hosts, "poll": 0}[self.mode]
        return round(changes * each)


NOBODY = Kind("nobody", hosts=0)
LAZY = Kind("pillion, lazy")
EAGER = Kind("pillion, eager", mode="eager", changes=20)
REGISTERED = Kind("pillion, lazy, and a registration each", registered=True)
BEHIND = Kind("pillion, lazy, behind one etcd grpc-proxy", behind=True)
TEN = Kind("asking every 10 s (koala)", mode="poll", every=10)
FIVE = Kind("asking every 5 s (kitex)", mode="poll", every=5)
KINDS = [NOBODY, Kind("one pillion, lazy", hosts=1), LAZY, EAGER, REGISTERED, BEHIND, TEN, FIVE]


@dataclass(frozen=True)
class Cost:
    """What some seconds took."""

    seconds: float
    requests: float
    """Messages that etcd received on any stream or as a call, but those of the writer."""
    ranges: float
    sent: float
    """Bytes of gRPC messages that etcd sent."""
    wire: float
    """Bytes on the loopback, both ways, headers included."""
    cpu: float
    """Seconds of etcd's CPU."""
    hosts_cpu: float


@dataclass(frozen=True)
class Fleet(Case):
    """Hosts of each kind on one etcd."""

    base = NOBODY.name
    metrics: tuple[Metric, ...] = (
        Metric("watchers", "watches"),
        Metric("requests_s", "idle: requests/s", digits=1),
        Metric("wire_kib_s", "KiB/s, both ways", digits=1),
        Metric("busy", "etcd's CPU, %", digits=1),
        Metric("rss", "its RSS, MiB", digits=1),
        Metric("changes_s", "changing: changes/s", digits=0),
        Metric("told_s", "events told/s"),
        Metric("sent_kib_s", "KiB/s sent", digits=1),
        Metric("change_busy", "etcd's CPU, %", digits=1),
        Metric("host_rss", "a pillion's RSS, MiB", digits=1),
        Metric("host_cpu", "its idle CPU, ms/s", digits=2),
    )

    def entrants(self, proxies: list[Proxy]) -> list[Proxy]:
        """A row for each kind of hosts."""
        ours = [proxy for proxy in proxies if proxy.name == PILLION]
        return [
            dataclasses.replace(proxy, name=kind.name, program=PILLION)
            for proxy in ours
            for kind in KINDS
        ]

    def measure(self, site: Site) -> dict[str, float]:
        """Starts the hosts, and looks at etcd while nothing happens, and while records change."""
        (kind,) = (kind for kind in KINDS if kind.name == site.proxy.name)
        seconds = 10 if site.seconds >= 1 else 5
        with contextlib.ExitStack() as stack:
            scratch = site.folder()
            store, port = stack.enter_context(etcd.started(site.load_cores, scratch))
            etcd.fill(port, records())
            door, front = port, None
            if kind.behind:
                front, door = stack.enter_context(grpc_proxy(site, port, scratch))
            hosts = stack.enter_context(start(kind, site, port, door, scratch))
            hosts.check_watches(port)

            idle = hosts.cost(store, port, lambda: hosts.idle(seconds))
            rss = kernel.memory(store.pid).rss
            memory = hosts.rss()
            told = hosts.events()
            puts = SERVICES * max(1, round(kind.changes * seconds / 2 / SERVICES))
            changing = hosts.cost(store, port, lambda: hosts.change(port, puts))
            puts = hosts.changed
            hosts.check_events(told + kind.told(puts))
            store.check_alive()
            figures = {
                "watchers": scale_reading.read(port).sum("etcd_debugging_mvcc_watcher_total"),
                "streams": scale_reading.read(port).sum("etcd_debugging_mvcc_watch_stream_total"),
                "requests_s": idle.requests / idle.seconds,
                "ranges_s": idle.ranges / idle.seconds,
                "idle_sent_kib_s": idle.sent / idle.seconds / 1024,
                "wire_kib_s": idle.wire / idle.seconds / 1024,
                "busy": idle.cpu / idle.seconds * 100,
                "rss": rss,
                "front_rss": kernel.memory(front.pid).rss if front else 0,
                "front_cpu_s": kernel.cpu_seconds(front.pid) if front else 0,
                "changes_s": puts / changing.seconds,
                "told_s": kind.told(puts) / changing.seconds,
                "sent_kib_s": changing.sent / changing.seconds / 1024,
                "change_busy": changing.cpu / changing.seconds * 100,
                "host_rss": memory,
                "host_cpu": idle.hosts_cpu / idle.seconds / max(kind.hosts, 1) * 1e3,
            }
            hosts.leave(port)
            return figures


class Hosts:
    """Hosts that have looked up what they use."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.servers: list[Server] = []
        self.admins: list[int] = []
        self.questions: list[Connection] = []
        self.keys = 0.0
        self.changed = 0

    def idle(self, seconds: float) -> None:
        """Lets some time pass, in which hosts that poll do so."""
        end = time.monotonic() + seconds
        if not self.questions:
            time.sleep(seconds)
            return
        per_second = self.kind.hosts * USED / self.kind.every
        body, number, began = {}, 0, time.monotonic()
        while time.monotonic() < end:
            service = (number // len(self.questions) + number * USED) % SERVICES
            if service not in body:
                body[service] = etcd.grpc(range_of(f"/microservices/{name(service)}/"))
            answer = self.questions[number % len(self.questions)].call(body[service])
            if answer < ENDPOINTS * len(record(name(service), 0, address(service, 0))[1]):
                raise Failed(f"an answer of {answer} bytes is not that of {ENDPOINTS} records")
            number += 1
            ahead = began + number / per_second - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        if number < 0.8 * per_second * seconds:
            raise Failed(f"only {number / seconds:.0f} questions/s instead of {per_second:.0f}")

    def change(self, port: int, puts: int) -> None:
        """Changes a record of each service in turn, at the rate of this kind.

        Each service as often as every other: so it is known how often every host is to be told. A
        busy machine may not keep the rate; then it is the one that was reached that is shown.
        """
        changing = [record(name(n), 0, address(n, 90 + n % 2)) for n in range(SERVICES)]
        planned = puts / self.kind.changes
        if self.questions:
            with etcd.churn(port, changing, self.kind.changes, BATCH):
                self.idle(planned)
            self.changed = puts
            return
        with contextlib.closing(etcd.Writer(port)) as writer:
            began = time.monotonic()
            while self.changed < puts and time.monotonic() < began + 2 * planned:
                round_ = self.changed // SERVICES
                for service in range(SERVICES):
                    writer.put(*record(name(service), 0, address(service, 90 + round_ % 2)))
                    self.changed += 1
                    ahead = began + self.changed / self.kind.changes - time.monotonic()
                    if ahead > 0:
                        time.sleep(ahead)

    def cost(self, store: Server, port: int, work: Callable[[], None]) -> Cost:
        """What some work, or its absence, took."""
        before, cpu = scale_reading.read(port), kernel.cpu_seconds(store.pid)
        hosts = self.cpu()
        wire, began = network.loopback_bytes(), time.monotonic()
        work()
        seconds, wire = time.monotonic() - began, network.loopback_bytes() - wire
        cpu = kernel.cpu_seconds(store.pid) - cpu
        hosts = self.cpu() - hosts
        after = scale_reading.read(port)

        def more(metric: str, **labels: str) -> float:
            return after.sum(metric, labels) - before.sum(metric, labels)

        received = "grpc_server_msg_received_total"
        return Cost(
            seconds=seconds,
            requests=more(received) - more(received, grpc_method="Put"),
            ranges=more(received, grpc_method="Range"),
            sent=more("etcd_network_client_grpc_sent_bytes_total"),
            wire=wire,
            cpu=cpu,
            hosts_cpu=hosts,
        )

    def cpu(self) -> float:
        """Seconds of CPU that the proxies have spent so far, of threads that still run."""
        return sum(kernel.exact_cpu_seconds(server.pid) for server in self.servers[:GROUP]) * (
            len(self.servers) / max(len(self.servers[:GROUP]), 1)
        )

    def rss(self) -> float:
        """MiB of a proxy, on average."""
        some = [kernel.memory(server.pid).rss for server in self.servers[:GROUP]]
        return sum(some) / max(len(some), 1)

    def events(self) -> float:
        """Events that the proxies have been told so far."""
        readings = (scale_reading.read(admin) for admin in self.admins)
        return sum(reading.sum("pillion_source_events_total") for reading in readings)

    def check_watches(self, port: int) -> None:
        """Returns once etcd has all the watches that there should be."""
        least = SERVICES if self.kind.behind else self.kind.watches()
        if self.kind.behind:
            # A new watcher gets a watch of its own at first, and is merged with others later.
            most = self.kind.watches() // 4
        else:
            most = least
        limit = time.monotonic() + SETTLE_LIMIT
        while True:
            reading = scale_reading.read(port)
            there = reading.sum("etcd_debugging_mvcc_watcher_total")
            # The grpc-proxy has one more for itself, to see whether there is a leader.
            if least <= there <= most + self.kind.behind:
                self.keys = reading.sum("etcd_debugging_mvcc_keys_total")
                return
            if time.monotonic() > limit:
                raise Failed(f"{there:.0f} watches instead of {least}")
            time.sleep(0.2)

    def check_events(self, expected: float) -> None:
        """Returns once every proxy has been told of every change that concerns it, and no other."""
        limit = time.monotonic() + SETTLE_LIMIT
        while (told := self.events()) < expected and time.monotonic() < limit:
            time.sleep(0.2)
        if self.admins and told != expected:
            raise Failed(f"{told:.0f} events were told instead of {expected:.0f}")

    def leave(self, port: int) -> None:
        """Ends the proxies as an operator would; what they registered is gone then."""
        for server in self.servers:
            os.kill(server.pid, signal.SIGTERM)
        limit = time.monotonic() + END_LIMIT
        while any(kernel.is_alive(server.pid) for server in self.servers):
            if time.monotonic() > limit:
                raise Failed("proxies do not end")
            time.sleep(0.1)
        if self.kind.registered:
            left = scale_reading.read(port).sum("etcd_debugging_mvcc_keys_total")
            if left != self.keys - self.kind.hosts:
                raise Failed(f"{self.keys - left:.0f} of {self.kind.hosts} registrations are gone")


@contextlib.contextmanager
def start(kind: Kind, site: Site, port: int, door: int, scratch: Path) -> Iterator[Hosts]:
    """Starts the hosts, in groups, and has each look up the services that it uses."""
    hosts = Hosts(kind)
    with contextlib.ExitStack() as stack:
        if kind.mode == "poll":
            for _ in range(kind.hosts):
                hosts.questions.append(Connection(door, "etcd", "/etcdserverpb.KV/Range"))
                stack.callback(hosts.questions[-1].close)
        else:
            for first in range(0, kind.hosts, GROUP):
                group = range(first, min(first + GROUP, kind.hosts))
                for number in group:
                    server, admin = launch(kind, site, number, door, scratch)
                    hosts.servers.append(stack.enter_context(server))
                    hosts.admins.append(admin)
                for number in group:
                    wait_until_ready(hosts.servers[number], hosts.admins[number])
                    if kind.mode == "lazy":
                        look_up(hosts.admins[number], number)
        if kind.registered:
            wait_for_keys(port, SERVICES * ENDPOINTS + kind.hosts)
        yield hosts


def launch(kind: Kind, site: Site, number: int, door: int, scratch: Path) -> tuple[Server, int]:
    """One proxy, and its admin port."""
    port = FIRST_PORT + 2 * number
    text = CONFIGURATION + (REGISTRATION if kind.registered else "")
    config = scratch / f"{number}.toml"
    values = {"port": port, "admin": port + 1, "etcd": door, "mode": kind.mode}
    config.write_text(text.format(**values, connection="fresh"))
    command = [site.program, "run", "-c", str(config)]
    return Server(command, site.proxy_cores, scratch / f"{number}.log"), port + 1


def look_up(admin: int, number: int) -> None:
    """Asks a proxy for the services of host `number`: each is used by as many hosts."""
    for place in range(USED):
        service = name((number * USED + place) % SERVICES)
        answer = json.loads(scale_reading.page(admin, f"/why?service={service}"))
        if len(answer["candidates"]) != ENDPOINTS:
            raise Failed(f"{service}: {answer}")


@contextlib.contextmanager
def grpc_proxy(site: Site, port: int, scratch: Path) -> Iterator[tuple[Server, int]]:
    """etcd's own proxy in front of it; gives the process and its port."""
    door = network.free_port()
    command = ["etcd", "grpc-proxy", "start", f"--endpoints=http://127.0.0.1:{port}"]
    command += [f"--listen-addr=127.0.0.1:{door}", f"--advertise-client-url=127.0.0.1:{door}"]
    command += [f"--data-dir={scratch / 'grpc-proxy'}"]
    with Server(command, site.load_cores, scratch / "grpc-proxy.log") as server:
        server.wait_until_it_accepts(door)
        yield server, door


def wait_until_ready(server: Server, admin: int) -> None:
    """Returns once the proxy has read its sources."""
    limit = time.monotonic() + START_LIMIT
    while True:
        server.check_alive()
        try:
            scale_reading.page(admin, "/ready")
            return
        except OSError as error:
            if time.monotonic() > limit:
                raise Failed(f"not ready: {error}") from error
            time.sleep(0.02)


def wait_for_keys(port: int, least: int) -> None:
    """Returns once etcd holds so many keys."""
    limit = time.monotonic() + START_LIMIT
    while (keys := scale_reading.read(port).sum("etcd_debugging_mvcc_keys_total")) < least:
        if time.monotonic() > limit:
            raise Failed(f"{keys:.0f} keys instead of {least}")
        time.sleep(0.1)


def records() -> Iterator[tuple[str, str]]:
    """All records."""
    for service in range(SERVICES):
        for endpoint in range(ENDPOINTS):
            yield record(name(service), endpoint, address(service, endpoint))


def name(service: int) -> str:
    """Of a service."""
    return f"svc-{service:04}"


def range_of(prefix: str) -> bytes:
    """`etcdserverpb.RangeRequest` of all keys below a prefix that ends with `/`."""
    return etcd.field(1, prefix.encode()) + etcd.field(2, (prefix[:-1] + "0").encode())
