"""Runs a build of pillion that counts what it does, so that the next build can be made for that.

The calls are those of the benchmark's cases: what matters is which branches are taken and which
functions call which, not how fast. A build that counts writes its counts when it ends by itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import backends, load
from bench.process import Failed
from bench.proxies import EVERYTHING, PILLION, PROXIES
from bench.site import Site

MESSAGE = 133
LARGE = 64 * 1024
# Mode, proxy, connections, streams of each, bytes of a message, calls.
LOADS = [
    ("pooled", PILLION, 8, 32, MESSAGE, 100_000),
    ("pooled", PILLION, 1, 1, MESSAGE, 10_000),
    ("pooled", PILLION, 64, 1, MESSAGE, 10_000),
    ("pooled", PILLION, 8, 8, LARGE, 2_000),
    ("fresh", PILLION, 8, 32, MESSAGE, 20_000),
    ("warm", PILLION, 8, 32, MESSAGE, 20_000),
    ("policy", EVERYTHING, 8, 32, MESSAGE, 50_000),
    ("tls", PILLION, 8, 32, MESSAGE, 30_000),
    ("tls-fresh", PILLION, 8, 32, MESSAGE, 5_000),
]
END_LIMIT = 30.0
"""Seconds that the proxy may take to drain and write its counts."""


def main() -> int:
    """Exit status: 0 the counts are there, 1 they are not."""
    options = _parse_arguments()
    os.environ["LLVM_PROFILE_FILE"] = str(options.profiles / "%m_%p.profraw")
    try:
        for mode, name, *shape in LOADS:
            _train(str(options.program), mode, name, *shape)
    except (Failed, OSError) as error:
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    written = len(list(options.profiles.glob("*.profraw")))
    print(f"{written} profiles in {options.profiles}")
    return 0 if written == len(LOADS) else 1


def _train(
    program: str, mode: str, name: str, connections: int, streams: int, message: int, calls: int
) -> None:
    (proxy,) = (proxy for proxy in PROXIES if proxy.name == name)
    with tempfile.TemporaryDirectory(prefix="pillion-train-") as folder:
        scratch = Path(folder)
        tls = mode.startswith("tls")
        site = Site(proxy, program, "0", "1", 0, scratch, tls=tls)
        request = scratch / "request"
        request.write_bytes(backends.message(message))
        shape = load.Shape(connections, streams, request, message)
        with site.running(mode, message) as running:
            load.run(running.url, shape, calls, site.load_cores)
            os.kill(running.pid, signal.SIGTERM)
            limit = time.monotonic() + END_LIMIT
            while os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if time.monotonic() > limit:
                    raise Failed(f"{program} did not end")
                time.sleep(0.05)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/train", description=sys.modules[__name__].__doc__
    )
    parser.add_argument("--program", type=Path, required=True, help="a build that counts")
    parser.add_argument("--profiles", type=Path, required=True, help="where its counts go")
    return parser.parse_args()
