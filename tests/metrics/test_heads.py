"""Concentration's constants, and head tables against rows read by hand."""

import json
import math

import pytest
import tiny
import torch

from vfl.engine.states import is_image_token
from vfl.errors import InputError
from vfl.metrics.concentration import concentration, concentration_of
from vfl.metrics.head_score import head_score
from vfl.metrics.heads import head_values, image_attention
from vfl.metrics.var import read_query


@pytest.mark.parametrize("num_tokens", [2, 16, 576])
@pytest.mark.parametrize("mass", [1.0, 0.05])
def test_even_attention_gives_zero_and_the_papers_constant(num_tokens, mass):
    even = torch.full((3, num_tokens), mass / num_tokens, dtype=torch.float64)
    zero, paper = concentration_of(even), concentration_of(even, base="paper")
    torch.testing.assert_close(zero, torch.zeros(3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(paper, torch.full((3,), 1 - math.log(2), dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(paper[0]) == pytest.approx(0.307, abs=5e-4)


def test_without_renormalising_a_small_mass_looks_concentrated():
    even = torch.full((576,), 0.05 / 576, dtype=torch.float64)
    expected = 1 - 0.05 * (math.log(576) - math.log(0.05)) / math.log(576)
    concentration = float(concentration_of(even, renormalise=False))
    assert concentration == pytest.approx(expected)
    assert concentration == pytest.approx(0.93, abs=0.01)


def test_one_token_takes_all():
    sharp = torch.tensor([[0.0, 0.3, 0.0]])
    assert concentration_of(sharp).tolist() == [1.0]
    assert concentration_of(torch.tensor([[0.3]])).tolist() == [1.0], "an image of one token"
    assert torch.isfinite(concentration_of(torch.zeros(1, 4))).all(), "a head that sees none of the image"


@pytest.mark.parametrize("query", ["predicts", "token"])
def test_tables_hold_what_the_query_reads(vlm, prompts, untouched, query):
    rows = {}
    encoded = prompts[0]
    read_query(vlm, encoded, lambda layer, weights: rows.update({layer: weights[0, :, 0]}), query=query)
    here = is_image_token(vlm, encoded)
    attention = torch.stack([rows[layer][:, : len(here)][:, here] for layer in range(vlm.num_layers)])
    weight, sharp = attention.sum(-1), concentration_of(attention)
    func = [1 / (layer + 1) + math.exp(-layer) for layer in range(vlm.num_layers)]
    score = weight * (1 + sharp * torch.tensor(func, dtype=torch.float64)[:, None])
    assert (
        concentration(vlm, [encoded], query=query)["weights"] == image_attention(vlm, [encoded], query=query)["heads"]
    )
    for metric, expected in ((image_attention, weight), (concentration, sharp), (head_score, score)):
        result = metric(vlm, [encoded], query=query)
        json.dumps(result, allow_nan=False)
        torch.testing.assert_close(torch.tensor(result["heads"], dtype=torch.float64), expected, rtol=0, atol=1e-12)
        assert result["scalars"]["heads"]["value"] == pytest.approx(float(expected.mean()))
        best = result["top"][0]
        assert best["value"] == pytest.approx(float(expected.max())) == result["heads"][best["layer"]][best["head"]]
        assert [entry["value"] for entry in result["top"]] == sorted((e["value"] for e in result["top"]), reverse=True)
    (values,) = head_values(vlm, [encoded], [lambda layer, a: a.sum(-1)], query=query)
    torch.testing.assert_close(values, weight)


def test_every_option_that_changes_a_number_is_recorded(vlm, prompts):
    options = {"query": "predicts", "base": "paper", "renormalise": False, "k": 2.0, "a": 0.5, "b": 0.1, "eps": 0.2}
    result = head_score(vlm, prompts[:1], **options)
    assert result["options"].items() >= options.items()
    assert result["heads"] != head_score(vlm, prompts[:1])["heads"]


def test_bad_options_are_refused(vlm, prompts):
    with pytest.raises(InputError, match="base='bits' is unknown"):
        concentration(vlm, prompts, base="bits")
    with pytest.raises(InputError, match="eps=0"):
        head_score(vlm, prompts, eps=0)


@pytest.mark.parametrize("query", ["predicts", "token"])
def test_prompts_together_give_what_each_gives_alone(vlm, prompts, query):
    many = [*prompts, vlm.ask("how many cats are there", tiny.picture(seed=7))]
    values_of = [lambda layer, a, at=at: (at + 1) * a for at in range(len(many))]
    together = head_values(vlm, many, values_of, query=query)
    for encoded, value_of, values in zip(many, values_of, together, strict=True):
        (alone,) = head_values(vlm, [encoded], [value_of], query=query)
        torch.testing.assert_close(values, alone, rtol=0, atol=1e-9)
