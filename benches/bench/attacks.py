"""Measures what each attack does to whoever behaves, and to the memory of the process.

On other connections, calls to another service go through the proxy by a schedule: first alone, then
while the attack goes on, and so several times. The proxy has a core to itself. On the other one
whoever makes those calls and answers them goes first, and the attacker and its endpoint get what is
left, so that what is measured is the proxy and not the machine. What is compared is the p99 of the
calls. The memory is looked at before, at its most, and ten seconds after the last attacker has
left.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import attackers, backends, kernel, network, tool
from bench.attackers import ATTACKS, SERVICE, Attack
from bench.case import MESSAGE
from bench.process import Failed, Server
from bench.proxies import ROOT
from bench.report import END
from bench.site import Running

PROGRAM = ROOT / "target" / "quick" / "pillion"
LOAD = ROOT / "target" / "quick" / tool.PROGRAM
DOCUMENT = ROOT / "docs" / "security.md"
FIGURES = ROOT / "docs" / "attacks.json"
MODES = ["fresh", "warm", "pooled"]
BEGIN = "<!-- figures of {mode}: written by `make attacks`, do not edit -->"
PROXY, OTHERS = "0", "1"
"""Cores: the proxy has one to itself, so that nobody waits for anything else."""
FIRST, LAST = ("chrt", "--fifo", "1"), ("chrt", "--idle", "0")
"""Who runs first on a core that is shared, and who gets what is left: see sched(7)."""
RATE = 200
"""Calls a second of those that behave, on four connections of the one worker."""
SETTLE = 10.0
NAMES = ["attack", "p99 before", "while", "ratio", "grown, MiB", "left, MiB", "cores", "cut off"]
PROMISED = 16.0
"""MiB that one attack may make the process grow by."""
CONFIGURATION = """\
[[listener]]
address = "127.0.0.1:{port}"
[admin]
address = "127.0.0.1:0"
[[source]]
kind = "file"
path = "endpoints.toml"
[defaults]
connection = "{mode}"
"""
RECORD = """\
[[endpoint]]
service = "{service}"
address = "127.0.0.1:{port}"
"""


@dataclass(frozen=True)
class Finding:
    """What one attack did."""

    attack: str
    p99_before_us: float
    p99_while_us: float
    ratio: float
    """Median over the rounds of p99 while to p99 before."""
    failed: int
    """Calls that were not answered, of those that behave."""
    grown: float
    """MiB at most, while it ran."""
    left: float
    """MiB, ten seconds after."""
    connections: int
    cut_off: int
    cpu: float
    """Cores that the proxy was busy with, while it ran."""


def main() -> int:
    """Exit status: 0 measured; 1 an attack did more than is promised; 2 it cannot be measured."""
    options = _parse_arguments()
    chosen = [a for a in ATTACKS if not options.only or any(o in a.name for o in options.only)]
    network.isolate()
    found = []
    print(row(*NAMES))
    for attack in chosen:
        try:
            finding = measure(attack, options)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            print(f"{attack.name}: {error}", file=sys.stderr)
            return 2
        found.append(finding)
        print(row(*cells(finding)), flush=True)
    if options.write:
        write(options.mode, found)
    bad = [f for f in found if f.grown > PROMISED or f.failed]
    for finding in bad:
        text = f"{finding.grown:.1f} MiB, {finding.failed} calls failed"
        print(f"{finding.attack}: more than is promised: {text}", file=sys.stderr)
    return 1 if bad else 0


def measure(attack: Attack, options: argparse.Namespace) -> Finding:
    """Runs one attack, several times, against a proxy of its own."""
    with tempfile.TemporaryDirectory(prefix="pillion-attacks-") as folder:
        scratch = Path(folder)
        with (
            _endpoint(scratch / "bench", _first()) as ports,
            _endpoint(scratch / SERVICE, LAST) as attacked,
        ):
            pages = scratch / SERVICE / "htdocs"
            (pages / "big").write_bytes(bytes(1 << 20))
            (pages / "small").write_bytes(bytes(15 << 10))
            endpoints = [("bench", ports[0]), (SERVICE, attacked[0])]
            records = [RECORD.format(service=service, port=port) for service, port in endpoints]
            (scratch / "endpoints.toml").write_text("".join(records))
            port = network.free_port()
            config = scratch / "pillion.toml"
            config.write_text(CONFIGURATION.format(port=port, mode=options.mode))
            command = [str(options.program), "run", "-c", str(config), "--workers=1", "--log=warn"]
            with Server(command, PROXY, scratch / "log") as server:
                server.wait_until_it_accepts(port)
                running = Running(server, port)
                running.check_a_call()
                return _measure(attack, running, options)


def _endpoint(
    scratch: Path, scheduled: tuple[str, ...]
) -> contextlib.AbstractContextManager[list[int]]:
    return backends.running(MESSAGE, OTHERS, scratch, count=1, scheduled=scheduled)


@functools.cache
def _first() -> tuple[str, ...]:
    """`FIRST`, where that is allowed."""
    if subprocess.run([*FIRST, "true"], capture_output=True).returncode == 0:
        return FIRST
    print("not root: calls may have to wait for the attacker", file=sys.stderr)
    return ()


def _measure(attack: Attack, running: Running, options: argparse.Namespace) -> Finding:
    pid, port, seconds = running.pid, running.port, options.seconds
    alone = Bystander(options.load, port)
    alone.calls(1.0)
    before, during, tallies, cpu = [], [], [], 0.0
    rss = kernel.memory(pid).rss
    # Makes what is the most now the most ever (proc(5)).
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    for _ in range(options.rounds):
        before.append(alone.calls(seconds))
        with attackers.running(attack, port, seconds + 1.5, OTHERS) as ended:
            time.sleep(0.5)
            cpu -= kernel.cpu_seconds(pid)
            during.append(alone.calls(seconds))
            cpu += kernel.cpu_seconds(pid)
            tallies.append(ended())
        running.server.check_alive()
        time.sleep(0.5)
    most = peak(pid)
    time.sleep(SETTLE)
    calls = before + during
    return Finding(
        attack=attack.name,
        p99_before_us=statistics.median(c["p99_us"] for c in before),
        p99_while_us=statistics.median(c["p99_us"] for c in during),
        ratio=statistics.median(w["p99_us"] / b["p99_us"] for b, w in zip(before, during)),
        failed=sum(c["calls"] - c["ok"] for c in calls),
        grown=most - rss,
        left=kernel.memory(pid).rss - rss,
        connections=sum(t.connections for t in tallies),
        cut_off=sum(t.cut_off for t in tallies),
        cpu=cpu / sum(c["seconds"] for c in during),
    )


@dataclass(frozen=True)
class Bystander:
    """Who calls by a schedule, on connections of its own."""

    program: Path
    port: int

    def calls(self, seconds: float) -> dict:
        """What `pillion-load` reports of them: see `benches/load/src/summary.rs`."""
        command = [*_first(), "taskset", "-c", OTHERS, str(self.program), "calls"]
        command += [f"--target=127.0.0.1:{self.port}", f"--path={backends.PATH}"]
        command += ["--connections=4", "--services=0"]
        command += [f"--request-bytes={MESSAGE}", f"--response-bytes={MESSAGE}"]
        command += [f"--rate={RATE}", f"--seconds={seconds}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Failed(f"{tool.PROGRAM}: {done.stderr.strip()[-400:]}")
        return json.loads(done.stdout)


def peak(pid: int) -> float:
    """MiB that were resident at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise Failed("the kernel does not tell the most memory")


def cells(finding: Finding) -> list[str]:
    """A row of the table."""
    f = finding
    times = [f"{us / 1000:.2f} ms" for us in (f.p99_before_us, f.p99_while_us)]
    memory = [f"{f.grown:.1f}", f"{f.left:.1f}"]
    ended = f"{f.cut_off:,} of {f.connections:,}"
    return [f.attack, *times, f"{f.ratio:.2f}", *memory, f"{f.cpu:.2f}", ended]


def row(*texts: str) -> str:
    """For the terminal."""
    return texts[0].ljust(48) + "".join(text.rjust(13) for text in texts[1:])


def write(mode: str, found: list[Finding]) -> None:
    """Puts the figures of a mode into the document, and beside it, in place of those of the same attacks."""
    figures = json.loads(FIGURES.read_text())
    known = {old["attack"]: Finding(**old) for old in figures.get(mode, [])}
    known |= {finding.attack: finding for finding in found}
    found = [known[attack.name] for attack in ATTACKS if attack.name in known]
    figures[mode] = [asdict(finding) for finding in found]
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    lines = ["| " + " | ".join(NAMES) + " |", "|" + "---|" * len(NAMES)]
    lines += ["| " + " | ".join(cells(finding)) + " |" for finding in found]
    text = DOCUMENT.read_text()
    mark = BEGIN.format(mode=mode)
    begin = text.index(mark) + len(mark)
    end = text.index(END, begin)
    DOCUMENT.write_text(text[:begin] + "\n" + "\n".join(lines) + "\n" + text[end:])


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/attacks", description=sys.modules[__name__].__doc__
    )
    parser.add_argument("--program", type=Path, default=PROGRAM, help="default %(default)s")
    parser.add_argument("--load", type=Path, default=LOAD, help="default %(default)s")
    parser.add_argument("--mode", default="fresh", choices=MODES)
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each half of a round")
    parser.add_argument("--only", action="append", help="attacks whose name has this in it")
    parser.add_argument("--write", action="store_true", help="put the figures into the document")
    return parser.parse_args()
