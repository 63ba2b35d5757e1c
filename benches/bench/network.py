"""Gives each measurement a network of its own.

`cases.measure` calls `isolate` before it starts anything. In a new network namespace every port is
free, no TIME_WAIT of an earlier measurement is left, the system's settings are the kernel's
defaults, and every connection counted is one of ours. Where namespaces are not allowed the
benchmark still runs, on the machine's own loopback, and says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.process import Failed

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def isolate() -> bool:
    """Moves this process, and so all that it starts from now on, into a new network namespace.

    Returns whether that worked. A user who is not root gets a user namespace first, once.
    """
    try:
        if os.geteuid() != 0:
            _become_root_of_a_user_namespace()
        _unshare(CLONE_NEWNET)
        _raise_loopback()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def passive_opens() -> int:
    """TCP connections accepted so far by all listeners of this network namespace."""
    rows = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()]
    names, values = (row for row in rows if row[0] == "Tcp:")
    return int(values[names.index("PassiveOpens")])


def loopback_bytes() -> int:
    """Bytes that have crossed the loopback of this network namespace so far, headers included."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    return 0


def wait_until_quiet(seconds: float = 0.5) -> None:
    """Returns once nothing has crossed the loopback for some time."""
    limit = time.monotonic() + 30
    before, now = -1, loopback_bytes()
    while before != now:
        if time.monotonic() > limit:
            raise Failed("the network does not become quiet")
        time.sleep(seconds)
        before, now = now, loopback_bytes()


@contextlib.contextmanager
def dropping(port: int) -> Iterator[None]:
    """Drops whatever is sent to a port, as a machine that has gone would, for the block's time."""
    rule = f"add table ip bench; add chain ip bench in {{ type filter hook input priority 0; }}; "
    rule += f"add rule ip bench in tcp dport {port} drop"
    _nft(rule)
    try:
        yield
    finally:
        _nft("delete table ip bench")


def _nft(commands: str) -> None:
    try:
        done = subprocess.run(["nft", commands], capture_output=True, text=True, timeout=10)
    except OSError as error:
        raise Failed(f"no endpoint can be made silent: {error}") from error
    if done.returncode != 0:
        raise Failed(f"no endpoint can be made silent: {done.stderr.strip()}")


def _unshare(flags: int) -> None:
    # os.unshare exists from Python 3.12 on; Debian 12 has 3.11.
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _become_root_of_a_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _raise_loopback() -> None:
    request = struct.pack("16sh22x", b"lo", IFF_UP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
