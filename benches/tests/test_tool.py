"""What pillion-load reports is read as it is written, and work that was not done is not accepted."""

import dataclasses
import re
import unittest
from pathlib import Path

from bench import tool
from bench.process import Failed

SOURCE = Path(__file__).resolve().parents[1] / "load" / "src"


def outcome(**figures):
    zeros = {field.name: 0 for field in dataclasses.fields(tool.Outcome)}
    return tool.Outcome(**{**zeros, "wrong": {}, **figures})


class Tool(unittest.TestCase):
    def test_its_report_has_the_fields_that_are_read(self):
        text = (SOURCE / "summary.rs").read_text()
        body = re.search(r"struct Summary \{(.*?)\n\}", text, re.DOTALL)[1]
        written = re.findall(r"pub\(crate\) (\w+):", body)
        self.assertEqual(written, [field.name for field in dataclasses.fields(tool.Outcome)])

    def test_its_steps_are_those_that_are_waited_for(self):
        text = (SOURCE / "held.rs").read_text()
        self.assertEqual(re.findall(r'step\("(\w+)"\)', text), list(tool.Held.STEPS))

    def test_complete_work_is_accepted_and_one_wrong_answer_is_not(self):
        self.assertEqual(outcome(calls=5, ok=5).check().calls, 5)
        with self.assertRaisesRegex(Failed, "of 5 calls 4 .*reset"):
            outcome(calls=5, ok=4, wrong={"reset": 1}).check()

    def test_no_work_is_not_accepted(self):
        with self.assertRaises(Failed):
            outcome().check()


if __name__ == "__main__":
    unittest.main()
