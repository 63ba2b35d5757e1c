"""Medians, ratios and the figures in the document are what they say."""

import json
import tempfile
import unittest
from pathlib import Path

from bench import report
from bench.case import Case
from bench.metric import Metric


def rounds(*values):
    return {number: {"cpu": value} for number, value in enumerate(values, start=1)}


CPU = Metric("cpu", "CPU a call, us", digits=1, spread=True, ratio=True)


def cells(table):
    first, _, *rest = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [first, *rest]]


class Report(unittest.TestCase):
    def test_a_ratio_is_taken_within_each_round(self):
        # The second round was twice as slow for both: the ratio must not see it.
        spread = report.ratios(rounds(5, 10, 6), rounds(10, 20, 10), "cpu")
        self.assertEqual((spread.median, spread.low, spread.high), (0.5, 0.5, 0.6))

    def test_a_round_that_one_of_them_lacks_makes_no_ratio(self):
        ours, theirs = rounds(5, 10), rounds(10, 20)
        del theirs[1]
        self.assertEqual(report.ratios(ours, theirs, "cpu").median, 0.5)
        del theirs[2]
        self.assertIsNone(report.ratios(ours, theirs, "cpu"))

    def test_figures_are_medians_with_ranges(self):
        samples = {"pillion": rounds(5, 6, 7), "envoy": rounds(10, 14, 12)}
        self.assertEqual(
            cells(report.figures_table((CPU,), samples)),
            [
                ["proxy", "CPU a call, us"],
                ["pillion", "6.0 (5.0 to 7.0)"],
                ["envoy", "12.0 (10.0 to 14.0)"],
            ],
        )

    def test_ratios_are_pillions_figure_over_the_others(self):
        samples = {"pillion": rounds(5, 6, 6), "envoy": rounds(10, 12, 24)}
        self.assertEqual(
            cells(report.ratios_table((CPU,), samples)),
            [["pillion as a multiple of", "CPU a call"], ["envoy", "0.50 (0.25 to 0.50)"]],
        )

    def test_another_row_can_be_the_one_that_is_compared(self):
        table = report.ratios_table((CPU,), {"a": rounds(2), "b": rounds(4)}, base="b")
        self.assertEqual(cells(table), [["b as a multiple of", "CPU a call"], ["a", "2.00"]])

    def test_a_figure_next_to_nothing_has_no_sign(self):
        self.assertEqual(report.Spread.of([-0.01]).text(1, with_range=True), "0.0")

    def test_json_holds_every_figure_a_measurement_a_line(self):
        found = report.Results(1, 1, (0, 1), True, {"pillion": "1"}, {})
        found.expect("case", ["pillion", "envoy"])
        found.add("case", "pillion", 1, {"cpu": 5.5, "busy": 99})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "new" / "latest.json"
            report.write_json(found, path)
            text = path.read_text()
        self.assertEqual(json.loads(text)["samples"]["case"]["pillion"]["1"]["cpu"], 5.5)
        self.assertIn('"1": { "cpu": 5.5, "busy": 99 }', text)

    def test_a_row_without_a_figure_is_left_out_of_the_tables(self):
        found = report.Results(1, 1, (0, 1), True, {}, {})
        case = Case("case", "Title", metrics=(CPU,))
        found.expect("case", ["pillion", "envoy"])
        found.add("case", "pillion", 1, {"cpu": 5})
        text = report.render(found, [case])
        self.assertIn("| pillion |", text)
        self.assertNotIn("envoy", text)

    def test_without_another_proxy_there_are_no_ratios(self):
        self.assertIsNone(report.ratios_table((CPU,), {"pillion": rounds(5)}))
        self.assertIsNone(report.ratios_table((CPU,), {"envoy": rounds(5)}))

    def test_only_what_is_between_the_markers_is_replaced(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "performance.md"
            path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
            report.write_between_markers("new\n", path)
            self.assertEqual(
                path.read_text(), f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
            )

    def test_a_document_without_markers_is_left_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "performance.md"
            path.write_text("mine\n")
            with self.assertRaises(ValueError):
                report.write_between_markers("new\n", path)
            self.assertEqual(path.read_text(), "mine\n")


if __name__ == "__main__":
    unittest.main()
