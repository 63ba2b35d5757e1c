"""Tests of the harness itself: `python3 -m unittest discover -s benches/tests -t benches`."""
