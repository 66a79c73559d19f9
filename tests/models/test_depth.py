"""The papers' layers of 32 in models of other depths."""

from vfl.metrics.accuracy import eighths
from vfl.metrics.knockout import window_layers
from vfl.metrics.var import svar_layers
from vfl.models.depth import PAPER_DEPTH, in_proportion


def test_a_model_of_the_papers_depth_has_the_papers_layers():
    assert [in_proportion(layer, PAPER_DEPTH) for layer in range(33)] == list(range(33))
    assert eighths(32) == [0, 4, 8, 12, 16]
    assert svar_layers(32) == (5, 18)
    assert window_layers(32)["mid"] == (11, 20)


def test_boundaries_keep_their_order_and_reach_both_ends():
    for num_layers in (1, 5, 28, 36, 80):
        edges = [in_proportion(layer, num_layers) for layer in range(33)]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0, num_layers)
