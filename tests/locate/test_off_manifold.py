"""Swapped states beside ordinary ones: the unit, the rows' own states, and the field in map and report."""

import pytest
import torch
from own_suite import write_own_suite

import vfl
from vfl.engine.plan import Plan
from vfl.engine.row_start import row_start
from vfl.engine.states import between_layers, forward
from vfl.functionmap import FunctionMap
from vfl.locate.off_manifold import _states, distances, off_manifold
from vfl.probes.asking import Asker
from vfl.probes.pair import read_suite
from vfl.proofs import OffManifold


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl")


@pytest.fixture(scope="module")
def suite(vlm, tmp_path_factory):
    return write_own_suite(vlm, tmp_path_factory.mktemp("suite") / "probes", 3, max_new_tokens=3)


def test_the_unit_is_how_far_ordinary_states_lie_apart() -> None:
    ordinary = torch.tensor([0.0, 2.0, 4.0, 8.0])[:, None, None]
    swapped = torch.tensor([2.0, 5.0, 20.0])[:, None, None]
    assert distances(swapped, ordinary)[:, 0].tolist() == [0.0, 0.5, 6.0], "nearest ones lie 2, 2, 2 and 4 apart"
    same = torch.zeros(4, 1, 3)
    assert distances(torch.ones(2, 1, 3), same).isnan().all()


def test_ordinary_states_lie_about_one_unit_from_others() -> None:
    rng = torch.Generator().manual_seed(0)
    ordinary, more = torch.randn(80, 2, 16, generator=rng), torch.randn(80, 2, 16, generator=rng)
    away = more.clone()
    away[:, 1] *= 3
    ratio = distances(away, ordinary).median(dim=0).values
    assert 0.9 < ratio[0] < 1.1
    assert ratio[1] > 1.8


@torch.no_grad()
def test_states_are_those_of_a_plain_pass(vlm, suite) -> None:
    """A row that reads another image in all layers is that image's own prompt."""
    pair = read_suite(suite)[0]
    target, source = Asker(vlm).ask_images([(pair, "image"), (pair, "source_image")])
    start = row_start(vlm, target.encoded, "text", target.image_cache)
    every = range(vlm.num_layers)
    for asked in (target, source):
        plain: list[torch.Tensor] = []
        with between_layers(vlm.layers, lambda layer, before, after, plain=plain: plain.append(after[0, -1])):
            forward(vlm, asked.encoded)
        rows = _states(vlm, start, Plan.swap(every, asked.image_cache), every)
        for one, other in zip(rows, plain, strict=True):
            torch.testing.assert_close(one, other.float(), atol=1e-5, rtol=1e-4)


def test_a_swap_for_the_own_image_is_ordinary(vlm, suite) -> None:
    pairs = read_suite(suite)
    one = [pair.model_copy(update={"source_image": pair.image}) for pair in pairs[:3]]
    found = off_manifold(Asker(vlm), one)
    assert found.pairs == 3
    assert all(value is None or value < 1e-3 for value in found.ratio)


def test_the_map_and_the_report_hold_it(vlm, suite, tmp_path) -> None:
    how = {"mode": "single", "max_new_tokens": 3, "progress": False}
    fmap = vfl.locate(vlm, out=tmp_path, probes=str(suite), off_manifold=True, **how)
    assert FunctionMap.load(tmp_path) == fmap
    for entry in fmap.functions.values():
        assert len(entry.off_manifold.ratio) == len(entry.off_manifold.high) == fmap.model.num_layers
        known = [(ratio, high) for ratio, high in zip(entry.off_manifold.ratio, entry.off_manifold.high, strict=True)]
        assert all(ratio is None or ratio <= high for ratio, high in known)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "distance of swapped states from ordinary ones" in page


def test_in_words() -> None:
    found = OffManifold(ratio=[0.5, 1.2, None], high=[0.8, 2.0, None], pairs=7, states=14)
    assert "of layer 1 lie 1.2 times as far" in found.in_words([1])
    assert "of any layer lie 1.2 times as far" in found.in_words([])
    assert found.in_words([2]).startswith("ordinary states do not differ")
