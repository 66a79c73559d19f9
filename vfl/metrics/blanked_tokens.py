"""Answers where some tokens of an image are set to the mean vision embedding, many sets and questions at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vfl.engine.decoder_inputs import joined_inputs, take_rows
from vfl.engine.memory import prompt_limit
from vfl.metrics.edited_prompts import Question, Reply, fitting, groups_of, row_replies
from vfl.models.vlm import VLM


def ablated(vlm: VLM, question: Question, sets: Sequence[torch.Tensor], blank: torch.Tensor) -> list[Reply]:
    """Answers with each set of image tokens, (V,) bool, at the mean embedding (d,)."""
    return ablated_all(vlm, [(question, sets)], blank)[0]


def ablated_all(
    vlm: VLM, asked: Sequence[tuple[Question, Sequence[torch.Tensor]]], blank: torch.Tensor
) -> list[list[Reply]]:
    """As `ablated` for several questions; those that are alike are rows of one batch, as many as fit into memory."""
    questions = [question for question, _ in asked]
    answers: dict[tuple[int, int], Reply] = {}
    for group in groups_of(vlm, questions):
        rows = [(number, at) for number in group for at in range(len(asked[number][1]))]

        def ask(part: Sequence[tuple[int, int]]) -> list[Reply]:
            numbers = list(dict.fromkeys(number for number, _ in part))
            inputs = joined_inputs(vlm, [questions[number].encoded for number in numbers])
            many = take_rows(inputs, [numbers.index(number) for number, _ in part])
            owners = [questions[number] for number, _ in part]
            ids = torch.cat([question.encoded.input_ids for question in owners])
            sets = torch.stack([asked[number][1][at] for number, at in part])
            return row_replies(vlm, owners, without_tokens(vlm, ids, many, sets, blank))

        first = questions[group[0]]
        limit = prompt_limit(vlm, first.encoded.length + first.limit)
        answers |= zip(rows, fitting(vlm, rows, limit, ask), strict=True)
    return [[answers[number, at] for at in range(len(sets))] for number, (_, sets) in enumerate(asked)]


def without_tokens(
    vlm: VLM, ids: torch.Tensor, inputs: Mapping[str, Any], sets: torch.Tensor, blank: torch.Tensor
) -> dict[str, Any]:
    """The decoder's arguments for B rows, of which each has a set of its image tokens replaced.

    Args:
        vlm: the model.
        ids: (B, T) prompts, each with V image tokens.
        inputs: the decoder's arguments for them.
        sets: (B, V) bool.
        blank: (d,) what stands in their place.
    """
    embeds = inputs["inputs_embeds"].clone()
    replaced = torch.zeros_like(ids, dtype=torch.bool)
    replaced[ids == vlm.parts.image_token_id] = sets.flatten().to(ids.device)
    embeds[replaced.to(embeds.device)] = blank.to(embeds)
    edited = {**inputs, "inputs_embeds": embeds}
    if (features := inputs.get("deepstack_visual_embeds")) is not None:
        edited["deepstack_visual_embeds"] = [_at_mean(layer, sets.to(layer.device)) for layer in features]
    return edited


def _at_mean(features: torch.Tensor, sets: torch.Tensor) -> torch.Tensor:
    """(B * V, d) features of image tokens, those of the sets (B, V) at the mean over their image's."""
    by_row = features.view(*sets.shape, -1)
    return torch.where(sets[..., None], by_row.mean(1, keepdim=True), by_row).flatten(0, 1)
