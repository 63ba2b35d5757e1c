"""Runs `pillion-load`, the benchmark's own program for what h2load cannot do (`benches/load`).

Cases use it for calls by a schedule or to many services, for streams that stay open, and as a
network that is 1 ms long.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from bench import backends, network
from bench.process import Failed, Server
from bench.site import Running, Site

PROGRAM = "pillion-load"
LIMIT = 120.0
"""Seconds that one run may take."""


@dataclass(frozen=True)
class Work:
    """What a call is, and on how many connections."""

    connections: int
    request_bytes: int
    response_bytes: int
    services: int = 0
    """0: the one called `bench`."""

    def arguments(self, running: Running) -> list[str]:
        """As the program takes them."""
        return [
            f"--target=127.0.0.1:{running.port}",
            f"--path={backends.PATH}",
            f"--connections={self.connections}",
            f"--request-bytes={self.request_bytes}",
            f"--response-bytes={self.response_bytes}",
            f"--services={self.services}",
        ]


@dataclass(frozen=True)
class Outcome:
    """What it reports of calls: see `benches/load/src/summary.rs`."""

    calls: int
    ok: int
    wrong: dict[str, int]
    seconds: float
    mean_us: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    late_p99_us: float

    def check(self) -> Outcome:
        """Itself. Raises `Failed` unless every call was answered rightly."""
        if self.ok != self.calls or self.calls == 0:
            raise Failed(f"of {self.calls} calls {self.ok} were answered rightly: {self.wrong}")
        return self


def calls(site: Site, running: Running, work: Work, extra: tuple[str, ...]) -> Outcome:
    """Makes calls; `extra` says how many and how fast."""
    command = [*_pinned(site), "calls", *work.arguments(running), *extra]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"the load did not end within {LIMIT:.0f} s") from error
    if done.returncode != 0:
        raise Failed(f"{PROGRAM}: {done.stderr.strip()[-400:]}")
    return Outcome(**json.loads(done.stdout))


class Held:
    """Streams that stay open, step by step. A `with` block, after which they are gone."""

    STEPS = ("connected", "open", "answered")

    def __init__(self, site: Site, running: Running, work: Work, streams: int) -> None:
        command = [*_pinned(site), "held", *work.arguments(running), f"--streams={streams}"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        # A step that is never done ends with the process, and so does waiting for it.
        self._watchdog = threading.Timer(LIMIT, self._process.kill)
        self._watchdog.start()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()

    def reach(self, step: str) -> None:
        """Returns once the step, the next one of `STEPS`, is done."""
        if step != self.STEPS[0]:
            self._proceed()
        said = self._process.stdout.readline().strip()
        if said != step:
            raise Failed(f"streams are not {step}: {self._process.communicate()[1].strip()[-400:]}")

    def leave(self) -> None:
        """Closes the connections, after the last step."""
        self._proceed()
        self._process.wait(timeout=LIMIT)

    def _proceed(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def far_away(site: Site, ports: list[int], milliseconds: float) -> Iterator[list[int]]:
    """Puts a relay before each server; gives the relays' ports."""
    with contextlib.ExitStack() as relays:
        listening = []
        for to in ports:
            port = network.free_port()
            command = [PROGRAM, "relay", f"--listen=127.0.0.1:{port}", f"--to=127.0.0.1:{to}"]
            command += [f"--milliseconds={milliseconds}"]
            relay = relays.enter_context(Server(command, site.load_cores, site.folder() / "log"))
            relay.wait_until_it_accepts(port)
            listening.append(port)
        yield listening


def _pinned(site: Site) -> list[str]:
    return ["taskset", "-c", site.load_cores, PROGRAM]
