"""How measured numbers are written: with their units, alone or as a range."""

from math import inf


def shown(value: float, unit: str) -> str:
    """A measured number as the reader sees it."""
    if unit == "sooner" and value < 0:
        return f"{-value:.0f}% later"
    before, after = _around(unit)
    return f"{before}{_number(value, unit)}{after}"


def span(low: float | None, high: float | None, unit: str, bare: bool = False) -> str:
    """A range of such numbers, its unit named once, or not at all if `bare`; None is no limit on that side."""
    if low is None or high is None:
        assert low is not None or high is not None
        if (low, high, unit) in _SIGNS:
            return _SIGNS[low, high, unit]
        return f"at most {shown(high, unit)}" if high is not None else f"at least {shown(low or 0, unit)}"
    if unit == "sooner" and low < 0:
        return f"{shown(low, unit)} to {shown(high, unit)}"
    before, after = ("", "") if bare and unit != "sooner" else _around(unit)
    return f"{before}{_number(low, unit)} to {_number(high, unit)}{after}"


_SIGNS: dict[tuple[float | None, float | None, str], str] = {
    (0, None, "sooner"): "sooner",
    (0, None, "points"): "not less",
    (None, 0, "points"): "not more",
    (1, None, "times"): "not less",
}
"""Ranges that only say which of two is the greater."""


def bounds(unit: str) -> tuple[float, float]:
    """The least and the most that such a number can be."""
    if unit.startswith("of ") or unit == "percent":
        return 0, 100
    return {"rank": (-1.0, 1.0), "level": (0, inf), "weights": (0, inf), "times": (0, inf)}.get(unit, (-inf, inf))


def _around(unit: str) -> tuple[str, str]:
    """What stands before and after a number."""
    if unit.startswith("of "):
        return "", f"% {unit}"
    texts = {
        "sooner": ("", "% sooner"),
        "level": ("level ", ""),
        "weights": ("", " weights"),
        "points": ("", " points"),
        "times": ("", " times"),
        "percent": ("", "%"),
        "rank": ("rank correlation ", ""),
    }
    return texts.get(unit, ("", ""))


def _number(value: float, unit: str) -> str:
    if unit == "sooner" or unit.startswith("of "):
        return f"{value:.0f}"
    if unit == "level":
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
    if unit == "weights":
        return f"{value:,.0f}"
    return f"{value:+.2f}" if unit == "points" else f"{value:,.2f}"
