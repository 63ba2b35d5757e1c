"""Medians, ratios and the figures in the document are what they say."""

import tempfile
import unittest
from pathlib import Path

from bench import report
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
