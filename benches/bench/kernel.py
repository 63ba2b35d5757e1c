"""What the kernel's own accounting says of a process and all of its descendants.

`cases` takes a reading before and after a run. Every process is started as the leader of a new
session (see `process`), so its descendants are those with its session number: workers that a
master has forked are included, whoever their parent is by now.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Sums over the processes, in MiB."""

    rss: float
    """Resident pages. Counts what several processes share once for each."""
    pss: float
    """Proportional share: a page mapped by n processes counts as one n-th."""


def cpu_seconds(session: int) -> float:
    """User and system time spent so far, children that have ended included.

    The kernel adds up nanoseconds and shows ticks of 10 ms, an error of 1 % in a run of 1 s.
    """
    # utime, stime, cutime and cstime: fields 14 to 17 of proc(5).
    ticks = sum(sum(map(int, stat[11:15])) for _, stat in _members(session))
    return ticks / TICKS_PER_SECOND


def exact_cpu_seconds(session: int) -> float:
    """The same to the nanosecond, but only of threads that still run: for those that hardly do."""
    total = 0
    for pid, _ in _members(session):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def memory(session: int) -> Memory:
    """Memory held now."""
    rss = pss = 0
    for pid, _ in _members(session):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1])
            elif line.startswith("Pss:"):
                pss += int(line.split()[1])
    return Memory(rss=rss / 1024, pss=pss / 1024)


def busy_share(seconds: float) -> float:
    """Waits, and says which share (0 to 1) of all cores was in use meanwhile, by anybody."""
    before = _cpu_times()
    time.sleep(seconds)
    spent = [after - start for start, after in zip(before, _cpu_times())]
    # idle and iowait: the fourth and fifth column of proc(5).
    return 1 - (spent[3] + spent[4]) / max(sum(spent), 1)


def is_alive(session: int) -> bool:
    """Whether a process of the session still runs; one that only waits to be reaped does not."""
    return any(stat[0] not in "ZX" for _, stat in _members(session))


def parse_stat(text: str) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; the second may hold anything."""
    return text[text.rindex(")") + 2 :].split()


def _cpu_times() -> list[int]:
    return list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))


def _members(session: int) -> list[tuple[int, list[str]]]:
    """Process number and fields of /proc/PID/stat of each process of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = parse_stat(Path(f"/proc/{entry}/stat").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # Ended since the directory was read.
        if int(stat[3]) == session:
            found.append((int(entry), stat))
    return found
