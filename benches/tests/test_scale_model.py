"""The fleet's figures follow from those measured by the formulas of the document."""

import unittest

from bench import scale_model
from bench.scale_fleet import EAGER, FIVE, KINDS, LAZY, NOBODY, REGISTERED, TEN, Kind

BASE = {
    "requests_s": 0,
    "ranges_s": 0,
    "wire_kib_s": 0,
    "idle_sent_kib_s": 0,
    "busy": 1.0,
    "rss": 24.0,
    "changes_s": 100.0,
    "told_s": 0,
    "sent_kib_s": 3.0,
    "change_busy": 6.0,
}


def measured(**figures):
    return {**BASE, **figures}


SAMPLES = {
    NOBODY.name: BASE,
    LAZY.name: measured(
        requests_s=40, wire_kib_s=20, idle_sent_kib_s=2, busy=3.0, rss=88.0,
        told_s=4000, sent_kib_s=1005.0, change_busy=28.0,
    ),
    EAGER.name: measured(
        requests_s=40, busy=3.0, changes_s=20.0, told_s=4000, sent_kib_s=1000.6, change_busy=24.0
    ),
    REGISTERED.name: measured(requests_s=80, told_s=4000),
    TEN.name: measured(requests_s=400, ranges_s=400, wire_kib_s=1200, busy=13.0),
    FIVE.name: measured(requests_s=800, ranges_s=800, wire_kib_s=2400, busy=25.0),
}


class Model(unittest.TestCase):
    def test_idle_traffic_grows_with_the_hosts_and_lists_are_added(self):
        ask = scale_model.ask(LAZY, SAMPLES)
        self.assertEqual(ask.watches, 200_000)
        lists = 10_000 * 20 / 600
        self.assertAlmostEqual(ask.requests, 40 * 50 + lists)
        self.assertAlmostEqual(ask.idle_mib, (20 * 50 + lists * 3) / 1024)
        self.assertAlmostEqual(ask.rss_gib, (24 + 64 * 50) / 1024)

    def test_an_event_is_what_changes_cost_beside_puts_and_idling(self):
        self.assertAlmostEqual(scale_model.event_kib(LAZY, SAMPLES), 1000 / 4000)
        self.assertAlmostEqual(scale_model.event_cpu(LAZY, SAMPLES), 0.20 / 4000)
        self.assertAlmostEqual(scale_model.event_kib(EAGER, SAMPLES), 1000 / 4000)

    def test_a_change_is_told_to_those_who_use_the_service_or_to_all(self):
        self.assertEqual(scale_model.told(LAZY), 200)
        self.assertEqual(scale_model.told(EAGER), 10_000)
        self.assertEqual(scale_model.ask(LAZY, SAMPLES).events, 2_000)

    def test_who_polls_is_told_nothing_and_asks_the_more_often_the_more_hosts_there_are(self):
        ten, five = (scale_model.ask(kind, SAMPLES) for kind in (TEN, FIVE))
        self.assertEqual((ten.events, ten.event_mib, ten.watches), (0, 0, 0))
        self.assertAlmostEqual(ten.requests, 20_000)
        self.assertAlmostEqual(five.cores, 2 * ten.cores)

    def test_there_is_a_table_only_of_what_was_measured(self):
        rows = scale_model.table(SAMPLES).splitlines()
        self.assertEqual(len(rows), 2 + len(scale_model.SHOWN))
        without = {name: figures for name, figures in SAMPLES.items() if name != EAGER.name}
        self.assertIsNone(scale_model.table(without))
        self.assertEqual(scale_model.section({}), "")


class Kinds(unittest.TestCase):
    def test_every_service_is_used_by_as_many_hosts(self):
        self.assertEqual(LAZY.told(100), 4_000)
        self.assertEqual(Kind("x", hosts=1).told(200), 40)
        self.assertEqual(EAGER.told(100), 20_000)
        self.assertEqual(TEN.told(100), 0)

    def test_a_registration_is_watched_by_its_owner(self):
        self.assertEqual(REGISTERED.watches() - LAZY.watches(), 200)

    def test_rows_have_names_of_their_own(self):
        self.assertEqual(len({kind.name for kind in KINDS}), len(KINDS))


if __name__ == "__main__":
    unittest.main()
