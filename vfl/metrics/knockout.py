"""Attention knockout: which edges between vision tokens and the answer's position are needed, and in which layers.

In a window of layers no query of the target reads a key of the source. Sources: the object's tokens, those with one and
two rings around them, everything but the object and its first ring, all but the last row. Targets: the last prompt
position (and the answer's tokens after it), or the image's last row. Accuracy, and the drop of the plain model's own
first token in probability, against the window. Source: Neo et al., "Towards Interpreting Visual Information Processing
in Vision-Language Models" (ICLR 2025).
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from transformers import DynamicCache

from vfl.engine.attention_tap import BlockedEdges, tapped
from vfl.engine.decoder_inputs import joined_inputs, take_rows
from vfl.engine.image_cache import can_share
from vfl.engine.memory import prompt_limit
from vfl.errors import InputError
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.edited_prompts import (
    Question,
    Reply,
    check_pairs,
    fitting,
    groups_of,
    need_object,
    prefilled,
    question_on,
    replies_of,
    row_replies,
)
from vfl.metrics.objects import Places, at_positions, last_row, object_tokens
from vfl.metrics.prompts import in_lots
from vfl.metrics.result import (
    Result,
    by_function,
    cluster_of,
    cut_answers,
    mean_curve,
    result,
    share_curve,
    share_scalar,
)
from vfl.metrics.spec import NEO, Metric
from vfl.models.depth import in_proportion
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair, Which

TARGETS = ("last_token", "last_row")
OBJECT = ("object", "object+1", "object+2", "rest")
SOURCES = (*OBJECT, "all_but_last_row")
CUTS = (*(f"{source} to last_token" for source in OBJECT), "object+1 to last_row", "all_but_last_row to last_row")
# First and last of 32 layers, both included and counted from 0, as in the published code (the printed windows mix 0 and
# 1).
PAPER_WINDOWS = {"early": (0, 9), "early_mid": (5, 14), "mid": (11, 20), "mid_late": (15, 24), "late": (21, 31)}
PAPER_WIDTH = 10  # layers of 32, of the sliding window

_Edges = dict[str, tuple[torch.Tensor, torch.Tensor]]
_Row = tuple[int, str, tuple[int, int]]  # question, cut, window


def knockout(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    cuts: Sequence[str] = CUTS,
    windows: Mapping[str, Sequence[int]] | None = None,
    sliding: int | None = None,
    prefix: str = "",
    noise_filter: bool = True,
) -> Result:
    """Accuracy with attention from sources to targets cut in windows of layers, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; target and source images are samples of their own. An image without a box
            has no object sources, which are left out for it.
        cuts: "source to target", with a source of "object", "object+1", "object+2", "rest" (all image tokens but
            object+1) and "all_but_last_row", and a target of "last_token" and "last_row". What of a source lies in the
            last row is not cut from the last row.
        windows: name -> first and last layer, both included; by default the paper's five, in proportion to the depth,
            and "all".
        sliding: beside them, windows of so many layers that begin at every layer (the paper's is of 10 of 32); 0 stands
            for that in proportion, None for none.
        prefix: beginning of the answer, such as the paper's "It is a".
        noise_filter: keep an image with boxes only where the answer is wrong once the boxes are filled with noise.
            Every sample must be answered rightly by the plain model.

    Returns:
        For each function f, source s and target t, curves "f/s to t/accuracy" (share of kept samples, Wilson) and
        "f/s to t/drop" (of the plain model's first token, in probability; bootstrap), both over pairs, whose points are
        "windows": name, first and last layer of each. Scalars "f/right" and "f/kept" (shares of images).
        "without_object": ids of pairs without a box.

    Raises:
        InputError: without pairs, for unknown cuts, or windows outside of the model.
    """
    check_pairs(pairs, "knockout")
    spans = check(vlm, cuts=cuts, windows=windows, sliding=sliding)
    asked = partial(question_on, prefix=prefix)
    places = Places(vlm)
    scalars: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    cut: dict[str, list[bool]] = {}
    for function, rows in by_function([pair.function for pair in pairs]).items():
        right, kept, clusters = [], [], []
        outcomes: dict[str, list[tuple[list[bool], list[float]]]] = {}
        of_outcomes: dict[str, list[Hashable]] = {}
        for lot in in_lots((pairs[row], which) for row in rows for which in asked_images(pairs[row])):
            questions = [question_on(vlm, pair, which, pair.path(which), prefix) for pair, which in lot]
            plain = replies_of(vlm, questions)
            filtered = [
                noise_filter and answer.right and bool(pair.boxes.get(which))
                for answer, (pair, which) in zip(plain, lot, strict=True)
            ]
            needed = iter(need_object(vlm, [image for image, asks in zip(lot, filtered, strict=True) if asks], asked))
            keeps = [answer.right and (not asks or next(needed)) for answer, asks in zip(plain, filtered, strict=True)]
            for answer, keep, (pair, _) in zip(plain, keeps, lot, strict=True):
                right.append(answer.right)
                kept.append(keep)
                clusters.append(cluster_of(pair))
                cut.setdefault(function, []).append(answer.cut)
            tried = [at for at, keep in enumerate(keeps) if keep]
            edges = [_edges(vlm, *lot[at], questions[at], places, cuts) for at in tried]
            edited = _knocked_out(vlm, [questions[at] for at in tried], edges, list(spans.values()))
            for at, by_cut in zip(tried, edited, strict=True):
                token, likely = plain[at].token, plain[at].probabilities
                for name, answers in by_cut.items():
                    drops = [float(likely[token] - answer.probabilities[token]) for answer in answers]
                    outcomes.setdefault(name, []).append(([answer.right for answer in answers], drops))
                    of_outcomes.setdefault(name, []).append(cluster_of(lot[at][0]))
        scalars[f"{function}/right"] = share_scalar(right, clusters=clusters)
        scalars[f"{function}/kept"] = share_scalar(kept, clusters=clusters)
        for name, samples in outcomes.items():
            over: dict[str, Any] = {"axis": "window", "clusters": of_outcomes[name]}
            curves[f"{function}/{name}/accuracy"] = share_curve([flags for flags, _ in samples], **over)
            curves[f"{function}/{name}/drop"] = mean_curve([drops for _, drops in samples], **over)
    listed = [{"name": name, "first": first, "last": last} for name, (first, last) in spans.items()]
    options = {
        "cuts": list(cuts),
        "prefix": prefix,
        "sliding": sliding,
        "noise_filter": noise_filter,
        "images": images_asked(pairs),
        "object": "any overlap with the box",
    }
    without = [pair.id for pair in pairs if not any(pair.boxes.get(which) for which in IMAGES)]
    return result(len(pairs), scalars, curves, options, windows=listed, without_object=without, **cut_answers(cut))


def check(
    vlm: VLM,
    *,
    cuts: Sequence[str] = CUTS,
    windows: Mapping[str, Sequence[int]] | None = None,
    sliding: int | None = None,
) -> dict[str, tuple[int, int]]:
    """First and last layer of each window; InputError for unknown cuts, or windows outside of the model."""
    known = [f"{source} to {target}" for target in TARGETS for source in SOURCES]
    if unknown := [cut for cut in cuts if cut not in known]:
        raise InputError(f"cuts={unknown} are unknown; choose from {', '.join(known)}.")
    return _windows(vlm, windows) | _sliding(vlm, sliding)


def window_layers(num_layers: int) -> dict[str, tuple[int, int]]:
    """First and last layer of the paper's windows, in proportion to another depth, and "all"."""
    scaled = {}
    for name, (first, last) in PAPER_WINDOWS.items():
        start = min(in_proportion(first, num_layers), num_layers - 1)
        scaled[name] = (start, max(start, in_proportion(last + 1, num_layers) - 1))
    return scaled | {"all": (0, num_layers - 1)}


def _windows(vlm: VLM, windows: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, int]]:
    if windows is None:
        return window_layers(vlm.num_layers)
    for name, span in windows.items():
        if len(span) != 2 or not 0 <= span[0] <= span[1] < vlm.num_layers:
            raise InputError(
                f"Window {name!r} is {list(span)}; expected its first and last layer, within 0 to {vlm.num_layers - 1}."
            )
    return {name: (span[0], span[1]) for name, span in windows.items()}


def _sliding(vlm: VLM, width: int | None) -> dict[str, tuple[int, int]]:
    """Windows of `width` layers that begin at every layer where one fits."""
    if width is None:
        return {}
    width = width or max(1, in_proportion(PAPER_WIDTH, vlm.num_layers))
    if not 0 < width <= vlm.num_layers:
        raise InputError(f"sliding={width}: the model has {vlm.num_layers} layers; give 1 to {vlm.num_layers}.")
    return {f"from_{first}": (first, first + width - 1) for first in range(vlm.num_layers - width + 1)}


def _edges(vlm: VLM, pair: Pair, which: Which, question: Question, places: Places, cuts: Sequence[str]) -> _Edges:
    """(1, T + answer) queries and (1, T) keys of each cut; those without a token in the source are left out."""
    encoded = question.encoded
    regions = places.of(encoded)
    bottom = last_row(regions)
    chosen = {"all_but_last_row": ~bottom}
    if boxes := pair.boxes.get(which):
        rings = [object_tokens(regions, boxes, rings) for rings in range(3)]
        chosen |= dict(zip(OBJECT, (*rings, ~rings[1]), strict=True))
    last = torch.zeros(1, encoded.length + question.limit, dtype=torch.bool, device=encoded.input_ids.device)
    last[:, encoded.length - 1 :] = True
    row = torch.zeros_like(last)
    row[:, : encoded.length] = at_positions(vlm, encoded, bottom)
    edges = {}
    for cut in cuts:
        source, target = cut.split(" to ")
        tokens = chosen.get(source)
        if tokens is not None and target == "last_row":
            tokens = tokens & ~bottom
        if tokens is not None and tokens.any():
            edges[cut] = ({"last_token": last, "last_row": row}[target], at_positions(vlm, encoded, tokens))
    return edges


def _knocked_out(
    vlm: VLM, questions: Sequence[Question], edges: Sequence[_Edges], windows: Sequence[tuple[int, int]]
) -> list[dict[str, list[Reply]]]:
    """For each question by cut: the answers, one a window.

    Where the cut queries are the last prompt position and what follows it, rows share the keys and values before it.
    """
    answers: dict[_Row, Reply] = {}
    for group in groups_of(vlm, questions):
        rows = [row for at in group for row in product([at], edges[at], windows)]
        first = questions[group[0]]
        length = first.encoded.length
        shared = [row for row in rows if row[1].endswith("last_token") and can_share(vlm, first.encoded)]
        for chosen, start in ((shared, length - 1), ([row for row in rows if row not in shared], 0)):
            run = partial(_run, vlm, questions, edges, start)
            limit = prompt_limit(vlm, length + first.limit)
            answers |= zip(chosen, fitting(vlm, chosen, limit, run), strict=True)
    return [
        {name: [answers[at, name, window] for window in windows] for name in of_question}
        for at, of_question in enumerate(edges)
    ]


def _run(
    vlm: VLM, questions: Sequence[Question], edges: Sequence[_Edges], start: int, rows: Sequence[_Row]
) -> list[Reply]:
    """Answers of rows that differ from position `start` on."""
    distinct = list(dict.fromkeys(at for at, _, _ in rows))
    prompts = [questions[at].encoded for at in distinct]
    owners = [distinct.index(at) for at, _, _ in rows]
    queries = torch.cat([edges[at][name][0] for at, name, _ in rows])
    keys = torch.cat([edges[at][name][1] for at, name, _ in rows])
    blocks = []
    for layer in range(vlm.num_layers):
        here = torch.tensor([first <= layer <= last for _, _, (first, last) in rows], device=queries.device)
        if here.any():
            blocks.append(BlockedEdges(frozenset([layer]), queries & here[:, None], keys))
    past: DynamicCache | None = None
    if start:
        past = prefilled(vlm, prompts, start)
        past.batch_select_indices(torch.tensor(owners))
        following = [prompts[owner] for owner in owners]
        inputs = {
            "inputs_embeds": vlm.embed(torch.cat([prompt.input_ids[:, start:] for prompt in following])),
            "position_ids": torch.cat([prompt.positions[..., start:] for prompt in following], dim=-2),
        }
    else:
        inputs = take_rows(joined_inputs(vlm, prompts), owners)
    with tapped(vlm, blocks=blocks):
        return row_replies(vlm, [questions[at] for at, _, _ in rows], inputs, past, narrows=False)


def _without_objects(pairs: Sequence[Pair], options: Mapping[str, Any]) -> str | None:
    """Why nothing can be cut, where all cuts begin at the object."""
    cuts = options.get("cuts", CUTS)
    at_object = all(cut.split(" to ")[0] in OBJECT for cut in cuts)
    if not at_object or any(pair.boxes.get(which) for pair in pairs for which in IMAGES):
        return None
    return (
        f"its cuts ({', '.join(cuts)}) begin at the object, and none of the {len(pairs)} pairs has a box (the column "
        "boxes or bbox of a row, the key boxes of a pair); all_but_last_row to last_row needs none."
    )


SPEC = Metric(
    function=knockout,
    check=check,
    needs="pairs",
    title="Attention knockout",
    read="Within a window of layers, the target no longer reads the source. Accuracy falls, and the plain answer’s "
    "token loses probability, in the windows where that edge carries the answer.",
    use="Keep the windows that hurt out of skipping and pruning, and read which source they hurt by: the object’s "
    "tokens, or what other tokens gathered from them.",
    unfit=_without_objects,
    source=NEO,
    equation="accuracy and p(token) with A[l, q, k] = 0 for q of the target, k of the source, l in a window",
    units={"drop": "probability"},
    panels="small",
    one_scale=True,
    only_images="it cuts attention from an object's place and from rows of the picture",
)
