"""The picture shows what was measured, and every renderer can read it."""

import unittest
from xml.etree import ElementTree

from bench import cases, plot, report

SVG = "{http://www.w3.org/2000/svg}"


def results(**samples):
    found = report.Results(2, 1, (0, 1), True, {}, {})
    found.samples = {case.replace("_", "-"): rows for case, rows in samples.items()}
    return found


def cpu(*values):
    return {number: {"cpu_us": value} for number, value in enumerate(values, start=1)}


def drawn(found):
    picture = ElementTree.fromstring(plot.draw(found))
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    bars = [element for element in picture.iter(f"{SVG}rect") if element.get("class") != "back"]
    return picture, texts, bars


class Plot(unittest.TestCase):
    def test_bars_are_as_long_as_medians_and_lines_reach_from_least_to_most(self):
        found = results(pooled_8x32={"pillion": cpu(4, 5, 6), "envoy": cpu(20, 20, 20)})
        picture, texts, bars = drawn(found)
        ours, theirs = (float(bar.get("width")) for bar in bars)
        self.assertAlmostEqual(ours / theirs, 0.25, places=2)
        (line,) = picture.iter(f"{SVG}line")
        length = float(line.get("x2")) - float(line.get("x1"))
        self.assertAlmostEqual(length / theirs, 0.1, places=2)
        self.assertEqual([bar.get("class") for bar in bars], ["ours", "theirs"])
        for text in ("CPU a call, µs", "pooled, 8 x 32", "pillion", "envoy", "5.0", "20.0"):
            self.assertIn(text, texts)

    def test_warm_stands_beside_fresh(self):
        found = results(
            fresh_8x32={"pillion": cpu(60), "nginx": cpu(70)}, warm_8x32={"pillion": cpu(80)}
        )
        _, texts, bars = drawn(found)
        self.assertEqual(len(bars), 3)
        self.assertIn("pillion, warm", texts)

    def test_what_was_not_measured_takes_no_room(self):
        found = results(pooled_8x32={"pillion": cpu(5), "envoy": {}}, fresh_8x32={"envoy": {}})
        picture, texts, bars = drawn(found)
        self.assertEqual(len(bars), 1)
        self.assertNotIn("fresh, 8 x 32", texts)
        self.assertNotIn("Memory, MiB", texts)
        nothing, _, _ = drawn(results())
        self.assertLess(float(nothing.get("height")), float(picture.get("height")))

    def test_everything_is_inside(self):
        rows = {f"proxy {number}": cpu(0, number) for number in range(7)}
        picture, _, _ = drawn(results(pooled_8x32=rows, pooled_64x1=rows, services=rows))
        for element in picture.iter():
            right = float(element.get("x", 0)) + float(element.get("width", 0))
            self.assertLessEqual(right, float(picture.get("width")))
            self.assertLessEqual(float(element.get("y", 0)), float(picture.get("height")))

    def test_each_panel_is_a_figure_of_a_case(self):
        figures = {case.name: {metric.key for metric in case.metrics} for case in cases.CASES}
        for panel in (panel for panels in plot.SECTIONS.values() for panel in panels):
            self.assertIn(panel.key, figures[panel.case])
            if panel.beside:
                self.assertIn(panel.key, figures[panel.beside])


if __name__ == "__main__":
    unittest.main()
