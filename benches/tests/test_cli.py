"""What is measured in which order, and that only a whole run replaces the published figures."""

import contextlib
import io
import json
import tempfile
import unittest
from argparse import Namespace
from pathlib import Path
from unittest import mock

from bench import cases, cli, report
from bench.proxies import PROXIES


def published(whole=False, scale=False):
    """The files beside the documents after a run, and both documents."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = folder / "performance.md"
        document.write_text(f"{report.BEGIN}\nold\n{report.END}\n")
        of_scale = folder / "scale.md"
        of_scale.write_text(f"{report.BEGIN_SCALE}\nold\n{report.END}\n")
        options = Namespace(json=folder / "run" / "latest.json", cases=cases.CASES)
        options.whole, options.scale = whole, scale
        found = report.Results(5, 1, (0, 1), True, {"pillion": "1"}, {})
        found.expect("start", ["pillion"])
        found.add("start", "pillion", 1, {"start_ms": 7})
        places = {
            "ROOT": folder,
            "DOCUMENT": document,
            "SCALE_DOCUMENT": of_scale,
            "PICTURE": document.with_suffix(".svg"),
            "FIGURES": document.with_suffix(".json"),
        }
        with mock.patch.multiple(cli, **places), contextlib.redirect_stdout(io.StringIO()):
            with contextlib.redirect_stderr(io.StringIO()):
                cli.publish(options, found)
        assert json.loads(options.json.read_text())["samples"]["start"]
        files = {path.name for path in folder.iterdir()}
        return files, document.read_text(), of_scale.read_text()


class Command(unittest.TestCase):
    def test_a_whole_run_writes_tables_picture_and_figures_and_links_them(self):
        files, text, of_scale = published(whole=True)
        self.assertIn("old", of_scale)
        self.assertLessEqual({"performance.svg", "performance.json"}, files)
        self.assertIn("| pillion | 7.0 ", text)
        self.assertIn("(performance.svg)", text)
        self.assertIn("(performance.json)", text)

    def test_part_of_a_run_leaves_the_document_alone(self):
        files, *texts = published()
        self.assertEqual(files, {"performance.md", "scale.md", "run"})
        for text in texts:
            self.assertIn("old", text)

    def test_a_run_of_scale_writes_its_own_document(self):
        _, text, of_scale = published(scale=True)
        self.assertIn("old", text)
        self.assertIn("| pillion | 7.0 ", of_scale)

    def test_scale_is_measured_only_on_demand(self):
        usual, wanted = cli.select(""), cli.select("scale")
        self.assertEqual(len(usual) + len(wanted), len(cases.CASES))
        self.assertTrue(all(case.name.startswith("scale-") for case in wanted))
        self.assertEqual([case.name for case in cli.select("start,idle")], ["start", "idle"])

    def test_another_proxy_is_first_in_each_round(self):
        first = [cli.rotated(PROXIES, round_)[0].name for round_ in range(len(PROXIES))]
        self.assertEqual(sorted(first), sorted(proxy.name for proxy in PROXIES))

    def test_names_of_cases_differ_and_each_has_somebody_to_measure(self):
        names = [case.name for case in cases.CASES]
        self.assertEqual(len(names), len(set(names)))
        for case in cases.CASES:
            rows = [proxy.name for proxy in case.entrants(PROXIES)]
            self.assertIn(case.base, rows)


if __name__ == "__main__":
    unittest.main()
