"""Two measurements side by side."""

import json

import numpy as np
import pytest

from vfl.errors import InputError
from vfl.metrics.head_tables import compare_files, emd, pearson, resampled

RNG = np.random.default_rng(0)


def test_emd_is_the_shift_between_two_distributions():
    table = RNG.random((4, 3))
    assert emd(table, table) == 0
    assert emd(table, table[::-1]) == pytest.approx(0), "where a head stands does not matter"
    assert emd(table, table + 0.25) == pytest.approx(0.25)


def test_pearson_head_by_head_and_over_relative_depth():
    table = RNG.random((6, 4))
    found = pearson(table, 2 * table + 1)
    assert found["pearson"] == pytest.approx(1)
    assert found["resampled"] is None
    assert found["n"] == 24
    weaker = pearson(table, table + 0.3 * RNG.random((6, 4)))
    assert weaker["low"] < weaker["pearson"] < weaker["high"]
    # a linear profile is the same at any depth
    profile = np.linspace(0, 1, 6)[:, None] + np.linspace(0.5, 0, 4)
    other = np.linspace(0, 1, 11)[:, None] + np.linspace(0, 0.5, 8)
    found = pearson(profile, other)
    assert found["resampled"] == (6, 4)
    assert found["pearson"] == pytest.approx(1)
    assert resampled(profile, (6, 4)) == pytest.approx(profile)
    assert pearson(table, np.ones((6, 4)))["pearson"] is None


def test_files_are_compared_by_the_metrics_that_they_share(tmp_path):
    table = RNG.random((3, 2)).tolist()
    for name, metrics in (("a", {"head_score": {"heads": table}}), ("b", {"head_score": {"heads": table}, "var": {}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    found = compare_files(tmp_path / "a", tmp_path / "b" / "metrics.json")
    assert list(found) == ["head_score"]
    assert found["head_score"]["emd"] == 0
    (tmp_path / "c.json").write_text('{"metrics": {"var": {}}}')
    with pytest.raises(InputError, match="in common"):
        compare_files(tmp_path / "a", tmp_path / "c.json")
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(InputError, match="no 'metrics'"):
        compare_files(tmp_path / "a", tmp_path / "d.json")
    with pytest.raises(InputError, match="can't be read"):
        compare_files(tmp_path / "a", tmp_path / "none.json")
