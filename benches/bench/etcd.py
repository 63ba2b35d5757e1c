"""An etcd of this measurement, filled with records, and changes to them at a steady rate.

`registry`, `scale` and `scale_fleet` use it. Requests are gRPC over the small client of `h2client`; the few protobuf fields
that they need are written here by hand, so that the benchmark needs no package.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

from bench import network
from bench.h2client import Connection
from bench.process import Failed, Server

BATCH = 50
"""Records a transaction: etcd takes 128, and a frame 16 KiB."""


@contextlib.contextmanager
def running(cores: str, scratch: Path) -> Iterator[int]:
    """Starts etcd on a folder of its own; gives its port."""
    with started(cores, scratch) as (_, port):
        yield port


@contextlib.contextmanager
def started(cores: str, scratch: Path) -> Iterator[tuple[Server, int]]:
    """The same; gives the process, too."""
    client, peer = (f"http://127.0.0.1:{network.free_port()}" for _ in range(2))
    command = ["etcd", f"--data-dir={scratch / 'etcd'}", "--log-level=error"]
    command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    command += [f"--initial-cluster=default={peer}"]
    port = int(client.rpartition(":")[2])
    with Server(command, cores, scratch / "etcd.log") as server:
        server.wait_until_it_accepts(port)
        _wait_for_a_leader(port)
        yield server, port


class Writer:
    """Puts keys, one after the other."""

    def __init__(self, port: int) -> None:
        self._puts = Connection(port, "etcd", "/etcdserverpb.KV/Put")

    def put(self, key: str, value: str) -> None:
        """Returns once etcd has taken it."""
        if self._puts.call(grpc(put(key, value))) == 0:
            raise Failed(f"etcd refused to put {key}")

    def close(self) -> None:
        """Closes the connection."""
        self._puts.close()


def fill(port: int, records: Iterator[tuple[str, str]]) -> int:
    """Puts all records, and says how many there were."""
    connection = Connection(port, "etcd", "/etcdserverpb.KV/Txn")
    count, batch = 0, []
    with contextlib.closing(connection):
        for record in records:
            batch.append(record)
            count += 1
            if len(batch) == BATCH:
                _transact(connection, batch)
                batch = []
        if batch:
            _transact(connection, batch)
    return count


@contextlib.contextmanager
def churn(
    port: int, records: list[tuple[str, str]], per_second: int, batch: int = 1
) -> Iterator[None]:
    """Puts one record after the other at a steady rate while the block runs.

    In a process of its own, so that it neither waits for the caller nor makes it wait. With `batch`
    so many at a time, all of other keys, in one transaction: for more a second than etcd takes one
    by one. Raises `Failed` if the rate could not be kept.
    """
    done = multiprocessing.Value("q", 0)
    process = multiprocessing.get_context("fork").Process(
        target=_churn, args=(port, records, per_second, batch, done), daemon=True
    )
    process.start()
    started = time.monotonic()
    try:
        yield
        rate = done.value / (time.monotonic() - started)
    finally:
        process.kill()
        process.join()
    if rate < 0.9 * per_second:
        raise Failed(f"only {rate:.0f} changes a second instead of {per_second}")


def grpc(message: bytes) -> bytes:
    """A gRPC message without compression."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def put(key: str, value: str) -> bytes:
    """`etcdserverpb.PutRequest`."""
    return field(1, key.encode()) + field(2, value.encode())


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """An integer as protobuf writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _transact(connection: Connection, records: list[tuple[str, str]]) -> None:
    # TxnRequest.success (2) holds RequestOp, of which request_put is 2.
    puts = b"".join(field(2, field(2, put(key, value))) for key, value in records)
    if connection.call(grpc(puts)) == 0:
        raise Failed("etcd refused a transaction")


def _churn(port: int, records: list[tuple[str, str]], per_second: int, batch: int, done) -> None:
    connection, started = Connection(port, "etcd", "/etcdserverpb.KV/Txn"), time.monotonic()
    while True:
        number = done.value
        _transact(connection, [records[(number + n) % len(records)] for n in range(batch)])
        done.value = number + batch
        # Behind its time it catches up, ahead of it it waits.
        ahead = started + (number + batch) / per_second - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)


def _wait_for_a_leader(port: int) -> None:
    limit = time.monotonic() + 10
    while True:
        try:
            writer = Writer(port)
            with contextlib.closing(writer):
                return writer.put("bench/up", "1")
        except (OSError, Failed) as error:
            if time.monotonic() > limit:
                raise Failed(f"etcd takes no write: {error}") from error
            time.sleep(0.05)
