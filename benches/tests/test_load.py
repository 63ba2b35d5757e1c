"""What h2load prints is read rightly, and work that was not done is not accepted."""

import unittest

from bench import load
from bench.process import Failed

SUMMARY = """
finished in 699.27ms, 286013.78 req/s, 47.20MB/s
requests: 200000 total, 200000 started, 200000 done, {ok} succeeded, 0 failed, 0 errored, \
0 timeout
status codes: {ok} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 33.01MB (34611672) total, 2.29MB (2400888) headers (space savings 93.06%), \
25.37MB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:      146us      4.44ms       861us       304us    95.55%
time for connect:      237us      2.08ms      1.02ms       581us    62.50%
"""


class Load(unittest.TestCase):
    def test_the_summary_of_h2load_is_read(self):
        outcome = load.parse(SUMMARY.format(ok=200000, data=26600000))
        self.assertAlmostEqual(outcome.seconds, 0.69927)
        self.assertEqual(outcome.calls_per_second, 286013.78)
        self.assertEqual((outcome.done, outcome.ok), (200000, 200000))
        self.assertEqual(outcome.data_bytes, 26600000)
        self.assertEqual((outcome.mean, outcome.max), (861, 4440))

    def test_complete_work_is_accepted(self):
        load.check(load.parse(SUMMARY.format(ok=200000, data=26600000)), 200000, 133)

    def test_one_answer_without_2xx_fails_the_measurement(self):
        with self.assertRaisesRegex(Failed, "199999 with 2xx"):
            load.check(load.parse(SUMMARY.format(ok=199999, data=26600000)), 200000, 133)

    def test_one_answer_without_a_body_fails_the_measurement(self):
        with self.assertRaisesRegex(Failed, "but 26599867 came"):
            load.check(load.parse(SUMMARY.format(ok=200000, data=26599867)), 200000, 133)

    def test_output_without_a_summary_fails_with_its_end(self):
        with self.assertRaisesRegex(Failed, "could not connect"):
            load.parse("could not connect to host")

    def test_times_are_read_in_every_unit(self):
        times = [load.microseconds(text) for text in ("5us", "1.5ms", "2s")]
        self.assertEqual(times, [5, 1500, 2e6])

    def test_percentiles_are_values_that_were_measured(self):
        values = [float(value) for value in range(1, 101)]
        self.assertEqual(load.percentile(values, 0.5), 50)
        self.assertEqual(load.percentile(values, 0.99), 99)
        self.assertEqual(load.percentile([7.0], 0.99), 7)


if __name__ == "__main__":
    unittest.main()
