"""The two servers behind every proxy: nghttpd, the cheapest there is.

They answer a POST to `/bench.Echo/Call` as a gRPC server would: head, one message, trailers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench import certificates, network
from bench.process import Server

COUNT = 2
PATH = "/bench.Echo/Call"


@contextlib.contextmanager
def running(
    response_bytes: int,
    cores: str,
    scratch: Path,
    count: int = COUNT,
    extra: tuple[str, ...] = (),
    tls: Path | None = None,
    scheduled: tuple[str, ...] = (),
) -> Iterator[list[int]]:
    """Starts the backends, with more arguments if need be, and TLS by a folder; gives their ports.

    They run as `scheduled` says, which is put before their command: `chrt`, say.
    """
    page = scratch / "htdocs" / PATH.lstrip("/")
    page.parent.mkdir(parents=True)
    page.write_bytes(message(response_bytes))
    with contextlib.ExitStack() as servers:
        ports = []
        for number in range(count):
            port = network.free_port()
            command = [*scheduled, *certificates.speaking(tls), "nghttpd", "--address=127.0.0.1"]
            command += [] if tls else ["--no-tls"]
            command += ["--trailer=grpc-status: 0", f"--htdocs={scratch / 'htdocs'}", *extra, str(port)]
            command += [str(tls / "key.pem"), str(tls / "cert.pem")] if tls else []
            log = scratch / f"backend{number}.log"
            servers.enter_context(Server(command, cores, log)).wait_until_it_accepts(port)
            ports.append(port)
        yield ports


def message(length: int) -> bytes:
    """A gRPC message of `length` bytes, its prefix of five included."""
    return b"\0" + (length - 5).to_bytes(4, "big") + b"m" * (length - 5)
