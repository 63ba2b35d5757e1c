"""Counts are read, compared and kept as they are."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

from bench import instructions
from bench.instructions import Count

# main costs 3 itself and calls work, which costs 40 and is called from another place, too.
PROFILE = """\
events: Ir
fl=(1) main.rs
fn=(1) main
16 2
cfn=(2) work
calls=1 20
16 40
+1 1
fn=(2)
20 10
fi=(3) inlined.rs
* 30
fn=(1)
18 4
"""


def compared(counted, before):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        grown = instructions.compare("pooled", counted, before)
    return grown, printed.getvalue()


class Instructions(unittest.TestCase):
    def test_a_function_is_counted_without_what_it_calls(self):
        self.assertEqual(instructions.read(PROFILE), {"main": 7, "work": 40})

    def test_growth_within_the_tolerance_is_let_through(self):
        before = {"total": 1000, "functions": {"work": 900}}
        grown, printed = compared(Count(1029, {"work": 929}), before)
        self.assertFalse(grown)
        self.assertIn("+2.9%", printed)

    def test_growth_beyond_it_names_the_functions(self):
        before = {"total": 1000, "functions": {"work": 900, "gone": 50}}
        grown, printed = compared(Count(1100, {"work": 910, "new": 140}), before)
        self.assertTrue(grown)
        names = [line.split()[-1] for line in printed.splitlines()[1:4]]
        self.assertEqual(names, ["new", "work", "gone"])

    def test_fewer_are_no_failure_but_told(self):
        grown, printed = compared(Count(900, {}), {"total": 1000, "functions": {}})
        self.assertFalse(grown)
        self.assertIn("--update", printed)

    def test_a_baseline_keeps_what_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "baseline.json"
            with contextlib.redirect_stdout(io.StringIO()):
                instructions.write({"pooled": Count(1000.4, {"work": 981.4, "rare": 19})}, path)
            kept = json.loads(path.read_text())["cases"]["pooled"]
            self.assertEqual(kept, {"total": 1000, "functions": {"work": 981}})
