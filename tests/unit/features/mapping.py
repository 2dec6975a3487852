"""User functions for the tests of user functions."""

from __future__ import annotations

import math


def half(x: float) -> float:
    return x / 2


def or_zero(x: float) -> float:
    return 0.0 if math.isnan(x) else x


def area(width: float, height: float) -> float:
    return width * height


def mixed(key: int) -> int:
    return (key * 31) ^ (key >> 7)


def both(left: int, right: int) -> int:
    return left * 3 + right


def unsupported(x: float) -> float:
    return float(str(x)[::-1])


def none() -> float:
    return 1.0
