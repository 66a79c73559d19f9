"""Teacher-forced scores of a batch of conversations, plain and with the image taken away at some layers.

The vision tower runs once and the decoder once over everything; beside it, each ablation recomputes only what follows a
conversation's first image, from its first ablated layer on. Logits are computed where an answer token is predicted.

Shapes: B conversations, T tokens, N answer tokens of all of them, A ablations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vfl.engine.ablated_rows import AblatedRows, run_with_ablated, slot_keys
from vfl.engine.decoder_inputs import blank_images, decoder_inputs, on_device, take_rows, with_mean
from vfl.engine.memory import in_parts
from vfl.engine.token_scores import score_tokens
from vfl.engine.windows import find_windows
from vfl.errors import InputError
from vfl.models.conversation import ConversationBatch
from vfl.models.vlm import VLM

Ablation = Literal["hide", "blank", "mean"]
ABLATIONS: tuple[Ablation, ...] = ("hide", "blank", "mean")


@dataclass(frozen=True)
class TeacherForcedScores:
    """Scores of N answer tokens, in the batch's order, on the CPU.

    Attributes:
        names: "own" and the A ablations, in the order of the rows below.
        logprobs: (A + 1, N) log-probability of each answer token, in nats. Where an ablation can't reach a token (text
            rows, answers before the first image) it has its own.
        top1: (A + 1, N) whether the token is the likeliest.
        divergence: (A + 1, N) Jensen-Shannon divergence, in nats, of the prediction of each answer token from the own
            one; 0 where an ablation can't reach.
        states: (B, 2, d) outputs of the last layer: where the first answer begins to be predicted, and the mean over
            the image tokens (0 without any).
        error_l2: (N,) EL2N of the own predictions, averaged over tokens by whoever wants a row's.
        row: (N,) the token's conversation.
        turn: (N,) which of its conversation's answers it belongs to, from 0.
        full: passes over whole conversations that were taken.
        fitting: conversations that fitted into memory together; fewer than B after an out-of-memory error.
    """

    names: tuple[str, ...]
    logprobs: torch.Tensor
    top1: torch.Tensor
    divergence: torch.Tensor
    states: torch.Tensor
    error_l2: torch.Tensor
    row: torch.Tensor
    turn: torch.Tensor
    full: int
    fitting: int


@dataclass(frozen=True)
class _DecoderBatch:
    """A batch as the decoder takes it, and the same with other images where an ablation needs them."""

    ids: torch.Tensor
    answers: torch.Tensor
    lengths: torch.Tensor
    own: Mapping[str, Any]
    other: Mapping[str, Any] | None

    def take(self, rows: Sequence[int]) -> "_DecoderBatch":
        other = None if self.other is None else take_rows(self.other, rows)
        chosen = list(rows)
        return _DecoderBatch(
            self.ids[chosen], self.answers[chosen], self.lengths[chosen], take_rows(self.own, rows), other
        )


_Scores = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Log-probabilities, hits, divergences, errors, states."""


@torch.no_grad()
def teacher_forced(
    vlm: VLM,
    batch: ConversationBatch,
    ablations: Mapping[str, Sequence[int]],
    *,
    ablation: Ablation = "hide",
    mean: torch.Tensor | None = None,
) -> TeacherForcedScores:
    """Score the answers of a batch, plain and with each ablation.

    An ablation changes what text reads of the images at its layers: every token that stands in no vision span, as
    `Plan.hide` has it. Vision tokens see everything as ever, and read what the changed text became (several images).

    Args:
        vlm: the model.
        batch: conversations, padded on the right.
        ablations: name -> layers.
        ablation: "hide": the text sees no vision tokens there; "blank": those of images of one colour and of the same
            sizes; "mean": those of images whose every embedding is `mean`.
        mean: (d,) an embedding as it enters the decoder, for ablation="mean".

    Raises:
        InputError: for layers that the model lacks, an unknown `ablation`, or a mean that is missing or does not fit.
    """
    _check(vlm, ablations, ablation, mean)
    inputs = on_device(vlm, batch.inputs)
    ids, answers = batch.inputs["input_ids"].cpu(), batch.answers.cpu()
    own = decoder_inputs(vlm, inputs)
    wanted = any(ablations.values()) and bool((ids == vlm.parts.image_token_id).any())
    other = None
    if wanted and ablation == "blank":
        other = decoder_inputs(vlm, blank_images(inputs))
    elif wanted and mean is not None:
        other = with_mean(vlm, own, inputs["input_ids"], mean)
    by_decoder = _DecoderBatch(ids, answers, batch.lengths.cpu(), own, other)
    chosen = [frozenset(layers) for layers in ablations.values()]

    def score(rows: Sequence[int]) -> list[_Scores]:
        return [_score(vlm, by_decoder.take(rows), chosen)]

    parts, fitting = in_parts(range(len(ids)), len(ids), score, "conversations")
    *by_token, states = zip(*parts, strict=True)
    logprobs, top1, divergence, errors = (torch.cat(part, dim=-1) for part in by_token)
    row, _ = answers.nonzero(as_tuple=True)
    begins = answers & ~answers.roll(1, dims=1)
    begins[:, 0] = answers[:, 0]
    whole_windows = 0 if vlm.shares_prefix or not wanted else sum(map(bool, ablations.values()))
    return TeacherForcedScores(
        names=("own", *ablations),
        logprobs=logprobs,
        top1=top1,
        divergence=divergence,
        states=torch.cat(states),
        error_l2=errors,
        row=row,
        turn=(begins.cumsum(1) - 1)[answers],
        full=1 + (other is not None) + whole_windows,
        fitting=fitting,
    )


def _check(vlm: VLM, ablations: Mapping[str, Sequence[int]], ablation: str, mean: torch.Tensor | None) -> None:
    if ablation not in ABLATIONS:
        raise InputError(f"ablation={ablation!r} is unknown; expected one of {', '.join(ABLATIONS)}.")
    for name, layers in ablations.items():
        outside = [layer for layer in layers if not 0 <= layer < vlm.num_layers]
        if outside:
            raise InputError(
                f"Ablation {name!r} names layers {outside}, but the model has {vlm.num_layers}: "
                f"0 to {vlm.num_layers - 1}."
            )
    width = vlm.model.config.get_text_config(decoder=True).hidden_size
    if ablation == "mean" and (mean is None or mean.shape != (width,)):
        shape = "none" if mean is None else f"one of shape {tuple(mean.shape)}"
        raise InputError(
            f"ablation='mean' needs the mean vision embedding, of shape ({width},); {shape} was given. Make it "
            "of some images with `vfl.engine.vision_embeddings.mean_embedding`."
        )
    if ablation != "mean" and mean is not None:
        raise InputError(
            f"A mean embedding was given with ablation={ablation!r}, which does not use it. Give ablation='mean'."
        )


def _score(vlm: VLM, inputs: _DecoderBatch, layers: list[frozenset[int]]) -> _Scores:
    """What `TeacherForcedScores` holds of the conversations in `inputs`, on the CPU."""
    rows, places = (part.to(vlm.device) for part in inputs.answers.nonzero(as_tuple=True))
    tokens = inputs.ids.to(vlm.device)[rows, places]
    # Sorted by where they start: those that have joined are always the first ones.
    order = sorted((index for index, chosen in enumerate(layers) if chosen), key=lambda index: min(layers[index]))
    windows = find_windows(vlm, inputs.ids, inputs.answers, inputs.lengths) if order else None
    ablated = None
    if windows is not None:
        replaced = None
        if inputs.other is not None:
            slots, _ = windows.slot_places()
            replaced = slot_keys(vlm, inputs.other, slots, windows.rows, frozenset().union(*layers))
        ablated = AblatedRows(vlm, windows, [layers[index] for index in order], replaced)
    output = run_with_ablated(vlm, inputs.own, ablated)
    hidden = output[rows.to(output.device), places.to(output.device) - 1]
    if ablated is None or windows is None:
        nothing = hidden.new_zeros(0, *hidden.shape)
        *alike, errors = (part.cpu() for part in score_tokens(vlm, hidden, tokens, nothing))
        logprobs, top1, divergence = (part.expand(len(layers) + 1, -1) for part in alike)
        return logprobs, top1, divergence, errors, _states(vlm, output, inputs)
    assert ablated.state is not None
    # Which window a token is predicted in, and where; answers before a window are not reached.
    window_of = torch.full((len(inputs.ids),), -1, device=vlm.device)
    window_of[windows.rows] = torch.arange(len(windows.rows), device=vlm.device)
    window = window_of[rows]
    inside = places - 1 - windows.starts[window]
    within = (window >= 0) & (inside >= 0)
    reached, others = within.nonzero()[:, 0], (~within).nonzero()[:, 0]
    state = ablated.state
    changed = state[window[reached].to(state.device), :, inside[reached].to(state.device)].transpose(0, 1)
    here, there = reached.to(hidden.device), others.to(hidden.device)
    scored = score_tokens(vlm, hidden[here], tokens[reached], changed)
    plain = score_tokens(vlm, hidden[there], tokens[others], changed[:0, :0])
    places = torch.cat([reached, others]).argsort().cpu()
    kept = [0, *(index + 1 for index in order)]
    tables = []
    for ablations, unreached in zip(scored[:3], plain[:3], strict=True):
        # An ablation without layers changes nothing: it has the own row.
        rows = ablations[:1].repeat(len(layers) + 1, 1)
        rows[kept] = ablations
        tables.append(torch.cat([rows.cpu(), unreached.expand(len(layers) + 1, -1).cpu()], dim=1)[:, places])
    errors = torch.cat([scored[3].cpu(), plain[3].cpu()])[places]
    return tables[0], tables[1], tables[2], errors, _states(vlm, output, inputs)


def _states(vlm: VLM, output: torch.Tensor, inputs: _DecoderBatch) -> torch.Tensor:
    """(B, 2, d) of the last layer's outputs (B, T, d): see `TeacherForcedScores.states`."""
    first = (inputs.answers.int().argmax(1) - 1).clamp(min=0).to(output.device)
    question = output[torch.arange(len(output), device=output.device), first]
    shown = (inputs.ids == vlm.parts.image_token_id).to(output)
    image = (output * shown[..., None]).sum(1) / shown.sum(1, keepdim=True).clamp(min=1)
    return torch.stack([question, image], dim=1).float().cpu()
