"""Runs h2load, and believes it only if all the work was done.

`cases` calls `run` for a fixed number of calls, so that every proxy does the same work, and
`estimate` to learn how many fill the time wanted.
"""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import certificates
from bench.process import Failed

LIMIT = 120.0
"""Seconds that one run of h2load may take."""


@dataclass(frozen=True)
class Shape:
    """How the calls come, and what one is."""

    connections: int
    streams: int
    """Calls in flight on each connection."""
    request: Path
    """File that is the body of each request."""
    response_bytes: int
    """Length of the body of each answer."""
    certificates: Path | None = None
    """Folder that says how TLS is spoken, where it is."""


@dataclass(frozen=True)
class Outcome:
    """What h2load reports of a run. Times in microseconds."""

    seconds: float
    calls_per_second: float
    done: int
    ok: int
    """Answers of status 2xx."""
    data_bytes: int
    """Bytes of all bodies together."""
    mean: float
    max: float


def estimate(url: str, shape: Shape, seconds: float, cores: str) -> float:
    """Warms up for `seconds` and returns the calls a second that were made."""
    outcome = parse(_h2load(url, shape, cores, ["-D", f"{max(seconds, 0.1) * 1000:.0f}ms"]))
    if outcome.ok == 0:
        raise Failed("no call succeeded while warming up")
    return outcome.calls_per_second


def run(url: str, shape: Shape, calls: int, cores: str) -> Outcome:
    """Makes exactly `calls` calls. Raises `Failed` unless every answer came and was whole."""
    outcome = parse(_h2load(url, shape, cores, ["-n", str(calls)]))
    check(outcome, calls, shape.response_bytes)
    return outcome


def latencies(url: str, shape: Shape, calls: int, cores: str, scratch: Path) -> list[float]:
    """Times of single calls in microseconds, sorted.

    A run of its own: h2load writes a line a call to its log, which would slow a measured run.
    """
    log = scratch / "latencies"
    log.unlink(missing_ok=True)
    _h2load(url, shape, cores, ["-n", str(calls), f"--log-file={log}"])
    rows = [line.split() for line in log.read_text().splitlines()]
    if len(rows) != calls or any(status != "200" for _, status, _ in rows):
        raise Failed(f"{len(rows)} of {calls} calls logged, or a status other than 200")
    return sorted(float(microseconds) for _, _, microseconds in rows)


def check(outcome: Outcome, calls: int, response_bytes: int) -> None:
    """Raises `Failed` unless `calls` answers of the right length and status came."""
    if outcome.done != calls or outcome.ok != calls:
        raise Failed(f"of {calls} calls {outcome.done} were answered, {outcome.ok} with 2xx")
    if outcome.data_bytes != calls * response_bytes:
        raise Failed(
            f"{calls} answers of {response_bytes} bytes make {calls * response_bytes}, "
            f"but {outcome.data_bytes} came"
        )


def percentile(ordered: list[float], share: float) -> float:
    """The smallest of the ordered values that at least `share` (0 to 1) of them do not exceed."""
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)]


def parse(text: str) -> Outcome:
    """Reads the summary that h2load prints."""

    def find(pattern: str) -> list[str]:
        match = re.search(pattern, text)
        if match is None:
            raise Failed(f"h2load printed no {pattern!r}: {text.strip()[-400:]}")
        return list(match.groups())

    seconds, rate = find(r"finished in (\S+), ([\d.]+) req/s")
    (done,) = find(r"requests: .* (\d+) done")
    (ok,) = find(r"status codes: (\d+) 2xx")
    (data,) = find(r"traffic: .*\((\d+)\) data")
    longest, mean = find(r"time for request: +\S+ +(\S+) +(\S+)")
    return Outcome(
        seconds=microseconds(seconds) / 1e6,
        calls_per_second=float(rate),
        done=int(done),
        ok=int(ok),
        data_bytes=int(data),
        mean=microseconds(mean),
        max=microseconds(longest),
    )


def microseconds(text: str) -> float:
    """Reads a time as h2load writes it: `861us`, `4.44ms`, `1.02s`."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def _h2load(url: str, shape: Shape, cores: str, extra: list[str]) -> str:
    command = ["taskset", "-c", cores, *certificates.speaking(shape.certificates)]
    command += ["h2load", "--threads=1"]
    command += [f"--clients={shape.connections}", f"--max-concurrent-streams={shape.streams}"]
    command += ["-H", ":authority: bench", "-H", "content-type: application/grpc"]
    command += ["-H", "te: trailers", f"--data={shape.request}", *extra, url]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"the load did not end within {LIMIT:.0f} s") from error
    if result.returncode != 0:
        raise Failed(f"h2load: {(result.stderr or result.stdout).strip()[-400:]}")
    return result.stdout
