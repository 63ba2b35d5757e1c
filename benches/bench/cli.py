"""The command `benches/run`: what to measure, in which order, and where the results go."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

from bench import cases, kernel, network, plot, report, scale_model, tool
from bench.case import Case
from bench.process import Failed
from bench.proxies import PILLION, PROXIES, ROOT, Proxy, search_path

RESULTS = ROOT / "benches" / "results" / "latest.json"
DOCUMENT = ROOT / "docs" / "performance.md"
SCALE = "scale"
"""Beginning of the names of the cases that are not among those of `make bench`."""
SCALE_DOCUMENT = ROOT / "docs" / "scale.md"
PICTURE, FIGURES = DOCUMENT.with_suffix(".svg"), DOCUMENT.with_suffix(".json")
ROUNDS = 5
NEEDED = ["h2load", "nghttpd", "nft", "taskset", tool.PROGRAM]


def main() -> int:
    """Runs the benchmark. Exit status: 0 done, 1 a measurement failed, 2 it cannot run here."""
    options = parse_arguments()
    if options.list:
        for case in cases.CASES:
            print(f"{case.name:15}  {case.title}")
        return 0
    # As for Ctrl-C: leave by an exception, so that every server is ended on the way.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    os.environ["PATH"] = search_path()
    cores = sorted(os.sched_getaffinity(0))
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing or len(cores) < 2:
        print(
            f"needs two cores and {', '.join(missing or NEEDED)}: try make bench", file=sys.stderr
        )
        return 2
    allow_many_connections()

    programs, results = find_proxies(options)
    results.cores = (cores[0], cores[1])
    try:
        run_rounds(options, programs, results)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    publish(options, results)
    return 1 if results.failures else 0


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="benches/run", description=sys.modules[__name__].__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=2, help="of calls for a figure, default 2")
    parser.add_argument("--quick", action="store_true", help="one round of half a second")
    parser.add_argument("--only", default="", help="programs, separated by commas")
    parser.add_argument("--case", default="", help="cases, or beginnings of their names")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where every figure goes, and beside it the picture")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    options.cases = select(options.case)
    if not options.cases or options.rounds < 1 or options.seconds <= 0:
        parser.error("nothing to measure")
    names = list(dict.fromkeys(proxy.program or proxy.name for proxy in PROXIES))
    options.proxies = list(filter(None, options.only.split(","))) or names
    if unknown := set(options.proxies) - set(names):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    # Only a whole run may replace the published figures.
    options.whole = options.rounds >= ROUNDS and not (options.only or options.case)
    options.scale = options.case == SCALE and not options.quick
    return options


def select(wanted: str) -> list[Case]:
    """Cases whose names begin so; without a wish all but those of scale, which take their time."""
    prefixes = tuple(filter(None, wanted.split(",")))
    if not prefixes:
        return [case for case in cases.CASES if not case.name.startswith(SCALE)]
    return [case for case in cases.CASES if case.name.startswith(prefixes)]


def find_proxies(options: argparse.Namespace) -> tuple[dict[str, str], report.Results]:
    """The programs that are there, by name, and results that hold their versions."""
    programs, versions, skipped = {}, {}, {}
    for proxy in PROXIES:
        if (proxy.program or proxy.name) not in options.proxies:
            continue
        program = proxy.find()
        if program is None:
            skipped[proxy.name] = f"not found ({proxy.install})"
        else:
            programs[proxy.name] = program
            versions[proxy.program or proxy.name] = proxy.read_version(program)
    results = report.Results(
        rounds=options.rounds,
        seconds=options.seconds,
        cores=(0, 1),
        isolated=network.isolate(),
        versions=versions,
        skipped=skipped,
    )
    for name, reason in skipped.items():
        print(f"without {name}: {reason}", file=sys.stderr)
    return programs, results


def run_rounds(
    options: argparse.Namespace, programs: dict[str, str], results: report.Results
) -> None:
    """Measures everything, interleaved: what disturbs the machine for a while disturbs all."""
    there = [proxy for proxy in PROXIES if proxy.name in programs]
    entrants = {case.name: case.entrants(there) for case in options.cases}
    for name, proxies in entrants.items():
        results.expect(name, [proxy.name for proxy in proxies])
    for round_ in range(1, options.rounds + 1):
        results.busy = max(results.busy, kernel.busy_share(1.0))
        for case in options.cases:
            if round_ > case.rounds:
                continue
            for proxy in rotated(entrants[case.name], round_):
                label = f"round {round_}/{options.rounds}  {case.name:15}  {proxy.name:15}"
                program = programs[proxy.program or proxy.name]
                try:
                    figures = cases.measure(case, proxy, program, results.cores, options.seconds)
                except (Failed, OSError) as error:
                    results.failures.append(f"{case.name}, {proxy.name}, round {round_}: {error}")
                    print(f"{label}  failed: {error}", file=sys.stderr)
                    continue
                results.add(case.name, proxy.name, round_, figures)
                first = [f"{figures[m.key]:,.{m.digits}f} {m.heading}" for m in case.metrics[:2]]
                print(label, *first, sep="  ", file=sys.stderr)


def rotated(entrants: list[Proxy], round_: int) -> list[Proxy]:
    """Another one first in each round, so that no proxy always follows the same one."""
    start = round_ % len(entrants) if entrants else 0
    return entrants[start:] + entrants[:start]


def publish(options: argparse.Namespace, results: report.Results) -> None:
    """Prints the tables, writes JSON and picture, and after a whole run the document with both."""
    text = report.render(results, options.cases)
    if fleet := scale_model.section(results.samples):
        text += f"\n{fleet}"
    print(text)
    if options.scale and PILLION in results.versions:
        report.write_between_markers(text, SCALE_DOCUMENT, report.BEGIN_SCALE)
        print(f"written into {SCALE_DOCUMENT.relative_to(ROOT)}", file=sys.stderr)
    report.write_json(results, options.json)
    options.json.with_suffix(".svg").write_text(plot.draw(results))
    if options.whole and PILLION in results.versions:
        report.write_json(results, FIGURES)
        PICTURE.write_text(plot.draw(results))
        links = f"![Bars of the figures below]({PICTURE.name})\n\n"
        links += f"Every figure of every round: [{FIGURES.name}]({FIGURES.name}).\n\n"
        report.write_between_markers(links + text, DOCUMENT)
        print(f"written into {DOCUMENT.relative_to(ROOT)}", file=sys.stderr)


def allow_many_connections() -> None:
    """Raises the limit of open files to the most allowed; every program started inherits it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
