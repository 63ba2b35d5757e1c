"""Starts a server on its cores and ends it, whatever happens.

`backends` and `proxies` describe servers, `cases` runs them. A server is a `with` block: when the
block is left, by its end, an error, Ctrl-C or a signal, the server and its descendants are gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from bench import kernel

START_LIMIT = 10.0
"""Seconds that a server may take to accept connections."""
END_LIMIT = 10.0
"""Seconds that the kernel may take to clear away a killed server."""


class Failed(Exception):
    """A measurement that cannot be trusted, or could not be made. The text says why."""


class Server:
    """A running server: `pid` leads the session of all its processes."""

    def __init__(self, argv: list[str], cores: str, log: Path) -> None:
        self.name = Path(argv[0]).name
        self._log = log
        self.started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", cores, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing here has state worth a clean end. The leader is not yet reaped, so that its
        # number, which is also that of the group, cannot belong to anybody else.
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        limit = time.monotonic() + END_LIMIT
        while kernel.is_alive(self.pid) and time.monotonic() < limit:
            time.sleep(0.005)

    def wait_until_it_accepts(self, port: int) -> None:
        """Returns once a connection to 127.0.0.1:port can be made."""
        limit = time.monotonic() + START_LIMIT
        while True:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError as error:
                if time.monotonic() > limit:
                    raise Failed(f"{self.name} accepts no connection: {error}") from error
                time.sleep(0.001)

    def check_alive(self) -> None:
        """Raises `Failed`, with the end of its log, if the server is no longer there."""
        # Not poll(): that would reap it, see __exit__.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            tail = self._log.read_text(errors="replace").strip()[-400:]
            raise Failed(f"{self.name} ended with status {ended.si_status}: {tail}")
