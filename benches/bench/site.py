"""Where one measurement takes place: its own network and folder, backends, one proxy.

`cases.measure` makes a site for each measurement, so that everything starts anew. The cases start
on it what they need, and read from it what was done.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import backends, certificates, network, proxies
from bench.h2client import Connection
from bench.process import START_LIMIT, Failed, Server
from bench.proxies import Proxy


@dataclass(frozen=True)
class Running:
    """A proxy that accepts connections."""

    server: Server
    port: int
    tls: bool = False

    @property
    def pid(self) -> int:
        """Leader of the session of all its processes."""
        return self.server.pid

    @property
    def url(self) -> str:
        """What a call goes to."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}{backends.PATH}"

    def connect(self, authority: str = "bench") -> Connection:
        """A client connection to the proxy."""
        return Connection(self.port, authority, backends.PATH, self.tls)

    def check_a_call(self, authority: str = "bench") -> None:
        """Returns once a call through the proxy is answered with a body."""
        limit = time.monotonic() + START_LIMIT
        while True:
            self.server.check_alive()
            reason = self._try_a_call(authority)
            if reason is None:
                return
            if time.monotonic() > limit:
                raise Failed(f"no call gets through: {reason}")
            time.sleep(0.001)

    def _try_a_call(self, authority: str) -> str | None:
        """Makes one call on a connection of its own; says what was wrong, if anything."""
        try:
            with contextlib.closing(self.connect(authority)) as connection:
                length = connection.call(backends.message(133))
        except OSError as error:
            return str(error)
        return None if length > 0 else "the answer has no body"


@dataclass(frozen=True)
class Site:
    """What a case finds: whom to measure, where, and for how long."""

    proxy: Proxy
    program: str
    proxy_cores: str
    """As taskset has them."""
    load_cores: str
    seconds: float
    """How long the measured part should take."""
    scratch: Path
    isolated: bool = field(default_factory=network.isolate)
    """Whether the network holds nothing but this measurement."""
    under: tuple[str, ...] = ()
    """A command that runs the proxy, such as `valgrind`."""

    tls: bool = False
    """Whether everybody speaks TLS."""

    @functools.cached_property
    def certificates(self) -> Path | None:
        """The folder of the certificate, where everybody speaks TLS."""
        return certificates.make(self.folder()) if self.tls else None

    def folder(self) -> Path:
        """A new folder, gone after the measurement."""
        return Path(tempfile.mkdtemp(dir=self.scratch))

    @contextlib.contextmanager
    def backends(
        self, response_bytes: int, count: int = 2, extra: tuple[str, ...] = ()
    ) -> Iterator[list[int]]:
        """Starts backends; gives their ports."""
        with backends.running(
            response_bytes, self.load_cores, self.folder(), count, extra, self.certificates
        ) as ports:
            yield ports

    @contextlib.contextmanager
    def start(
        self,
        mode: str,
        ports: list[int],
        services: tuple[str, ...] = ("bench",),
        workers: int = 1,
    ) -> Iterator[Running]:
        """Starts the proxy, each service of which has all the backends."""
        with proxies.start(
            self.proxy,
            self.program,
            mode,
            ports,
            services,
            workers,
            self.proxy_cores,
            self.folder(),
            self.under,
            self.certificates,
        ) as (server, port):
            yield Running(server, port, self.tls)

    @contextlib.contextmanager
    def running(self, mode: str, response_bytes: int) -> Iterator[Running]:
        """Starts two backends and the proxy before them, and sees a call get through."""
        with self.backends(response_bytes) as ports, self.start(mode, ports) as running:
            running.check_a_call()
            yield running


def check_connections(mode: str, opens: int, calls: int, in_flight: int, isolated: bool) -> None:
    """Raises `Failed` unless the backends accepted as many connections as the mode means."""
    if mode in ("pooled", "policy", "tls"):
        # Even a proxy that does not multiplex needs no more than one for each call in flight.
        least, most = 0, 2 * in_flight
    else:
        # Connections opened for calls of the warming up that were cancelled, and with `warm`
        # those opened ahead, may be used by the run; as many may be left over by it.
        ahead = in_flight + (1024 if mode == "warm" else 0)
        least, most = calls - ahead, calls * 1.01 + ahead
    if opens < least or (isolated and opens > most):
        raise Failed(f"{mode}, but {calls} calls made {opens} upstream connections")
