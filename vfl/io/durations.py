"""Lengths of time for a person."""


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"
