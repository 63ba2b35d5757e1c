"""Scrapes are read as they are written."""

import unittest

from bench.scale_reading import Reading

TEXT = """\
# HELP grpc_server_handled_total Total number of RPCs completed on the server.
# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="OK",grpc_method="Txn"} 12
grpc_server_handled_total{grpc_code="OK",grpc_method="Range"} 1e+03
grpc_server_handled_total{grpc_code="Internal",grpc_method="Range"} 1
process_resident_memory_bytes 5.7e+07
odd{text="a \\"b\\", c=\\"d\\""} 3
"""


class Readings(unittest.TestCase):
    def test_samples_are_summed_by_labels(self):
        reading = Reading(TEXT)
        name = "grpc_server_handled_total"
        self.assertEqual(reading.sum(name), 1013)
        self.assertEqual(reading.sum(name, {"grpc_method": "Range"}), 1001)
        self.assertEqual(reading.sum(name, {"grpc_method": "Range", "grpc_code": "OK"}), 1000)
        self.assertEqual(reading.sum("process_resident_memory_bytes"), 5.7e7)
        self.assertEqual(reading.series(), 5)

    def test_what_is_not_there_is_nothing(self):
        self.assertEqual(Reading(TEXT).sum("absent"), 0)
        self.assertEqual(Reading(TEXT).sum("odd", {"c": "d"}), 0)

    def test_a_quote_in_a_label_does_not_end_it(self):
        self.assertEqual(Reading(TEXT).sum("odd", {"text": 'a \\"b\\", c=\\"d\\"'}), 3)


if __name__ == "__main__":
    unittest.main()
