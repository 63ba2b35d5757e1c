"""Counts the instructions that a call costs, and compares them with what they were.

Times differ from machine to machine and from hour to hour; the number of instructions hardly does.
callgrind counts them in the running program, function by function, while h2load makes a fixed
number of calls. A change that makes the path of a call longer by more than the tolerance is a
failure, and the functions that grew are named.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench import backends, load
from bench.process import Failed
from bench.proxies import EVERYTHING, PILLION, PROXIES, ROOT
from bench.site import Running, Site

BASELINE = ROOT / "benches" / "instructions.json"
PROGRAM = ROOT / "target" / "quick" / "pillion"
CASES = ["pooled", "fresh", "policy"]
WARM_UP, CALLS = 1_000, 4_000
MESSAGE = 133
TOLERANCE = 0.03
"""Share by which a count may grow. Counts of one program differ by less than half of a per cent,
since how calls are batched depends on timing; those of programs that differ elsewhere by up to one
and a half, since that moves what is inlined."""
NAMED = 10
"""Functions named of a case that has grown."""
NOTED = 20
"""Instructions a call below which a function is not kept in the baseline."""


@dataclass(frozen=True)
class Count:
    """Instructions a call: all, and those of each function itself."""

    total: float
    functions: dict[str, float]


def main() -> int:
    """Exit status: 0 as before, or not comparable; 1 a count grew; 2 it cannot be counted here."""
    options = _parse_arguments()
    if not options.program.exists():
        print(f"{options.program} is not there: cargo build --profile quick", file=sys.stderr)
        return 2
    try:
        counts = {case: count(case, options.program) for case in options.case or CASES}
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        print(f"instructions cannot be counted: {error}", file=sys.stderr)
        return 2
    if options.update:
        write(counts, options.baseline)
        return 0
    baseline = json.loads(options.baseline.read_text())
    if baseline["rustc"] != rustc():
        print(f"not compared: the baseline is of {baseline['rustc']}, this is {rustc()}")
        for case, counted in counts.items():
            print(f"{case}: {counted.total:,.0f} instructions a call")
        return 0
    grown = [compare(case, counted, baseline["cases"][case]) for case, counted in counts.items()]
    return 1 if any(grown) else 0


def count(case: str, program: Path) -> Count:
    """Runs the program under callgrind, and returns what a call costs."""
    name = EVERYTHING if case == "policy" else PILLION
    (proxy,) = (proxy for proxy in PROXIES if proxy.name == name)
    with tempfile.TemporaryDirectory(prefix="pillion-count-") as folder:
        scratch = Path(folder)
        under = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch / 'callgrind'}")
        under += ("--instr-atstart=no", "--trace-children=no")
        site = Site(proxy, str(program), "0", "1", 0, scratch, under=under)
        request = scratch / "request"
        request.write_bytes(backends.message(MESSAGE))
        # Not more on a connection than are few: whether calls that connect take turns depends on the time.
        shape = load.Shape(*((32, 8) if case == "fresh" else (8, 32)), request, MESSAGE)
        with site.running(case, MESSAGE) as running:
            load.run(running.url, shape, WARM_UP, site.load_cores)
            _control(running, "-i", "on")
            load.run(running.url, shape, CALLS, site.load_cores)
            _control(running, "-i", "off")
            _control(running, "-d")
        dumps = sorted(scratch.glob("callgrind.*"))
        if not dumps:
            raise Failed("callgrind wrote nothing")
        functions = read(dumps[-1].read_text())
    total = sum(functions.values())
    return Count(total / CALLS, {name: cost / CALLS for name, cost in functions.items()})


def read(text: str) -> Counter[str]:
    """Instructions of each function itself, from a file in callgrind's format.

    A name stands in full the first time, as `(7) main`, and as `(7)` afterwards. The line after
    `calls=` holds what the callee cost.
    """
    names: dict[str, str] = {}
    costs: Counter[str] = Counter()
    function, is_call = "", False
    for line in text.splitlines():
        if match := re.match(r"(c?fn)=\((\d+)\)(?: (.*))?", line):
            kind, number, name = match.groups()
            if name:
                names[number] = name
            if kind == "fn":
                function = names[number]
        elif line.startswith("calls="):
            is_call = True
        elif match := re.match(r"[\d+*-]\S* (\d+)", line):
            if not is_call:
                costs[function] += int(match.group(1))
            is_call = False
    return costs


def compare(case: str, counted: Count, before: dict) -> bool:
    """Prints how a case compares with the baseline; says whether it grew by too much."""
    change = counted.total / before["total"] - 1
    print(
        f"{case}: {counted.total:,.0f} instructions a call, {change:+.1%} from {before['total']:,}"
    )
    if change < -TOLERANCE:
        print("  fewer than the baseline: keep it so with benches/instructions --update")
    if change <= TOLERANCE:
        return False
    names = counted.functions.keys() | before["functions"].keys()
    changes = {
        name: counted.functions.get(name, 0) - before["functions"].get(name, 0) for name in names
    }
    for name in sorted(changes, key=changes.get, reverse=True)[:NAMED]:
        print(f"  {changes[name]:+7,.0f}  {name}")
    print("  if it is worth that: benches/instructions --update, and say why in the commit")
    return True


def write(counts: dict[str, Count], path: Path) -> None:
    """Makes these counts the baseline; what was not counted stays as it was."""
    cases = json.loads(path.read_text())["cases"] if path.exists() else {}
    for case, counted in counts.items():
        noted = {name: round(n) for name, n in sorted(counted.functions.items()) if n >= NOTED}
        cases[case] = {"total": round(counted.total), "functions": noted}
        print(f"{case}: {counted.total:,.0f} instructions a call")
    path.write_text(json.dumps({"rustc": rustc(), "cases": cases}, indent=1) + "\n")


def rustc() -> str:
    """The compiler that is used here; another one makes other code."""
    output = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    return " ".join(output.stdout.split()[:2])


def _control(running: Running, *arguments: str) -> None:
    command = ["callgrind_control", *arguments, str(running.pid)]
    subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/instructions", description=sys.modules[__name__].__doc__
    )
    parser.add_argument("--program", type=Path, default=PROGRAM, help="default %(default)s")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="default %(default)s")
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--update", action="store_true", help="make this the baseline")
    return parser.parse_args()
