"""Metrics as a report shows them: each by its own description (vfl/metrics/spec.py), in the order of their list."""

from vfl.metrics.measure import known_metrics
from vfl.metrics.spec import Metric


def guide_of(name: str) -> Metric:
    """How to read a metric."""
    return known_metrics()[name]


def ordered(names: list[str]) -> list[str]:
    """Metrics in the page's order, unknown ones last."""
    places = {name: place for place, name in enumerate(known_metrics())}
    return sorted(names, key=lambda name: places.get(name, len(places)))
