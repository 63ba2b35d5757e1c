"""Connections and CPU time are counted rightly, and a proxy that cheats is found out."""

import os
import socket
import sys
import tempfile
import time
import unittest
from pathlib import Path

from bench import kernel, network, site
from bench.process import Failed, Server

SPIN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
PARENT = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {SPIN!r}])\n"


class Connections(unittest.TestCase):
    def test_fresh_means_a_connection_for_each_call(self):
        site.check_connections("fresh", 100_000, 100_000, 256, isolated=True)
        for opens in (99_000, 110_000):
            with self.assertRaises(Failed):
                site.check_connections("fresh", opens, 100_000, 256, isolated=True)

    def test_pooled_means_no_more_connections_than_calls_in_flight(self):
        site.check_connections("pooled", 256, 100_000, 256, isolated=True)
        with self.assertRaises(Failed):
            site.check_connections("pooled", 5_000, 100_000, 256, isolated=True)

    def test_connections_of_others_count_only_where_there_can_be_none(self):
        site.check_connections("fresh", 110_000, 100_000, 256, isolated=False)


class Accounting(unittest.TestCase):
    def test_a_process_name_may_hold_spaces_and_parentheses(self):
        self.assertEqual(kernel.parse_stat("7 (a) (b c)) S 1 7 7\n"), ["S", "1", "7", "7"])

    def test_time_of_a_child_counts_for_the_server(self):
        cores = str(min(os.sched_getaffinity(0)))
        program = PARENT + "time.sleep(60)"
        with tempfile.TemporaryDirectory() as folder:
            with Server([sys.executable, "-c", program], cores, Path(folder) / "log") as server:
                limit = time.monotonic() + 30
                while kernel.cpu_seconds(server.pid) < 0.3 and time.monotonic() < limit:
                    time.sleep(0.02)
                self.assertGreaterEqual(kernel.cpu_seconds(server.pid), 0.3)
                self.assertGreater(kernel.memory(server.pid).pss, 1)

    def test_time_of_what_runs_is_read_to_the_nanosecond_too(self):
        cores = str(min(os.sched_getaffinity(0)))
        program = SPIN + "print(flush=True)\ntime.sleep(60)"
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            with Server([sys.executable, "-c", program], cores, log) as server:
                while not log.read_bytes():
                    server.check_alive()
                    time.sleep(0.01)
                exact, ticks = kernel.exact_cpu_seconds(server.pid), kernel.cpu_seconds(server.pid)
        self.assertGreaterEqual(exact, 0.3)
        self.assertAlmostEqual(exact, ticks, delta=0.1)

    def test_bytes_on_the_loopback_are_counted(self):
        before = network.loopback_bytes()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with socket.create_connection(listener.getsockname()) as client:
                server, _ = listener.accept()
                with server:
                    client.sendall(bytes(10_000))
                    self.assertEqual(len(server.recv(10_000, socket.MSG_WAITALL)), 10_000)
        self.assertGreaterEqual(network.loopback_bytes() - before, 10_000)

    def test_a_server_is_gone_after_its_block_with_its_children(self):
        cores = str(min(os.sched_getaffinity(0)))
        program = "import os, time\nos.fork()\nprint(flush=True)\ntime.sleep(60)"
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            with Server([sys.executable, "-c", program], cores, log) as server:
                while len(log.read_bytes()) < 2:
                    server.check_alive()
                    time.sleep(0.01)
                self.assertTrue(kernel.is_alive(server.pid))
        self.assertFalse(kernel.is_alive(server.pid))

    def test_a_server_that_ends_is_noticed_with_its_last_words(self):
        cores = str(min(os.sched_getaffinity(0)))
        with tempfile.TemporaryDirectory() as folder:
            program = "raise SystemExit('no such port')"
            with Server([sys.executable, "-c", program], cores, Path(folder) / "log") as server:
                with self.assertRaisesRegex(Failed, "status 1: no such port"):
                    server.wait_until_it_accepts(1)


if __name__ == "__main__":
    unittest.main()
