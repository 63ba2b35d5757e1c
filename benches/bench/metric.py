"""What a figure of a case is called, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A figure of a case: how it is called and printed."""

    key: str
    heading: str
    digits: int = 0
    spread: bool = False
    """Print minimum and maximum of the rounds, too."""
    ratio: bool = False
    """Print pillion's as a multiple of the peer's, round by round."""
