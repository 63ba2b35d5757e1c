"""Attackers notice that they are cut off, and what came of an attack is told as it was."""

import contextlib
import json
import socket
import tempfile
import threading
import unittest
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

from bench import attackers, attacks
from bench.attackers import ATTACKS, Tally


def cuts_off_after(length):
    """A port at which each connection is closed once so many bytes have come."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            with contextlib.suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    left = length
                    while left > 0 and (came := peer.recv(1 << 16)):
                        left -= len(came)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Attacks(unittest.TestCase):
    def test_who_is_cut_off_comes_back_until_time_is_up(self):
        (ping,) = (attack for attack in ATTACKS if attack.name == "PING")
        tally = Tally()
        # As long as it takes to be cut off three times.
        clock = mock.Mock(side_effect=lambda: 0 if tally.cut_off < 3 else 2)
        with mock.patch.object(attackers.time, "monotonic", clock):
            ping.run(cuts_off_after(10_000), 1, tally)
        self.assertEqual(tally, Tally(connections=3, cut_off=3))

    def test_a_process_of_its_own_tells_what_came_of_it(self):
        def attack(port, until, tally):
            tally.connections, tally.cut_off = port, 2

        with attackers.running(attackers.Attack("any", attack), 3, 1.0, "0") as ended:
            self.assertEqual(ended(), Tally(connections=3, cut_off=2))

    def test_a_long_header_is_written_as_hpack_has_it(self):
        literal = attackers.long_literal(b"x-bomb", b"b" * 4_000, True)
        # RFC 7541, 5.1: 4000 - 127 is 3873, which is 33 and 30 times 128.
        self.assertEqual(literal[:11], b"\x40\x06x-bomb\x7f\xa1\x1e")
        self.assertEqual(len(literal), 11 + 4_000)

    def test_figures_go_between_the_marks_of_their_mode_and_nothing_else_changes(self):
        finding = attacks.Finding("PING", 900, 1_800, 2.0, 0, 1.5, 0.5, 1_200, 1_199, 0.3)
        with tempfile.TemporaryDirectory() as folder:
            document, figures = Path(folder, "security.md"), Path(folder, "attacks.json")
            marks = [attacks.BEGIN.format(mode=mode) for mode in ["fresh", "pooled"]]
            sections = [f"{mark}\nold\n{attacks.END}\n" for mark in marks]
            document.write_text("before\n" + "".join(sections) + "after\n")
            old = [asdict(replace(finding, attack=name)) for name in ["SETTINGS", "PING"]]
            figures.write_text(json.dumps({"fresh": ["kept"], "pooled": old}))
            finding = replace(finding, failed=3)
            with mock.patch.multiple(attacks, DOCUMENT=document, FIGURES=figures):
                attacks.write("pooled", [finding])
            text = document.read_text()
            self.assertTrue(text.startswith("before\n") and text.endswith("after\n"))
            row = "| PING | 0.90 ms | 1.80 ms | 2.00 | 1.5 | 0.5 | 0.30 | 1,199 of 1,200 |"
            self.assertIn(row, text)
            self.assertEqual(text.count("old"), 1)
            self.assertIn(sections[0], text)
            written = json.loads(figures.read_text())
            rows = [(row["attack"], row["failed"]) for row in written["pooled"]]
            self.assertEqual(rows, [("PING", 3), ("SETTINGS", 0)])
            self.assertEqual(written["fresh"], ["kept"])
