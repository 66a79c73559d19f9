"""What vision tokens spell in the vocabulary, layer by layer, and whether object patches spell their object.

    p_i(l) = softmax(W_U norm(h[l]_i))
    correspondence(l) = share of object-patch positions i whose argmax is the first token of the class name

Object patches are the image tokens whose region shares any area with the object's box. Source: Neo et al., "Towards
Interpreting Visual Information Processing in Vision-Language Models" (ICLR 2025).
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from vfl.engine.states import is_image_token, is_vision
from vfl.errors import InputError
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.logit_lens import lens_of
from vfl.metrics.regions import overlaps, token_regions
from vfl.metrics.result import Result, cluster_of, mean_curve, mean_scalar, result
from vfl.metrics.spec import NEO, SHARE, Metric
from vfl.models.vlm import VLM
from vfl.probes.asking import first_tokens, question_of
from vfl.probes.pair import Pair


def lens(vlm: VLM, pairs: Sequence[Pair]) -> Result:
    """Confidence of the logit lens on vision tokens, and object correspondence where the pairs have boxes and a label.

    Args:
        vlm: the model.
        pairs: probe pairs; target and source images are samples of their own. Images without a box, or pairs without a
            label, only count for the confidence.

    Returns:
        Curves over states h[0] .. h[L]: "confidence" (probability of the likeliest entry, mean over image tokens),
        "text_confidence" (over the tokens outside of the image) and "correspondence" (share of object tokens),
        bootstrap over pairs; scalars "confidence" and "text_confidence" (means over states), "correspondence" (at each
        image's best state) and "best" (that state, the earliest among equals; over images with any correspondence).
        "without_object": ids of the pairs that have no box or label.

    Raises:
        InputError: without pairs, or where the image's tokens can't be placed in the picture.
    """
    if not pairs:
        raise InputError("The metric lens was asked for without probe pairs. Give at least one.")
    confidence: list[list[float]] = []
    text_confidence: list[list[float]] = []
    spelled: list[list[float]] = []
    clusters: list[Hashable] = []
    of_spelled: list[Hashable] = []
    without: list[str] = []
    places: dict[Any, torch.Tensor] = {}  # all images of one size share them
    for pair in pairs:
        boxes = {which: pair.boxes.get(which, []) for which in IMAGES}
        names = first_tokens(vlm, (pair.label, pair.label.lower())) if pair.label else []
        if not names or not any(boxes.values()):
            without.append(pair.id)
        for which in asked_images(pair):
            encoded = vlm.ask(question_of(vlm, pair), pair.path(which))
            vision, text = is_image_token(vlm, encoded), ~is_vision(encoded)
            here = vision | text
            probabilities, ids = lens_of(vlm, encoded, k=1, here=here)
            of_text = text[here].cpu()
            ids = ids[:, ~of_text]
            clusters.append(cluster_of(pair))
            confidence.append(probabilities[:, ~of_text, 0].double().mean(1).tolist())
            text_confidence.append(probabilities[:, of_text, 0].double().mean(1).tolist())
            if not names or not boxes[which]:
                continue
            key = (encoded.image_sizes, ids.shape[1])
            if key not in places:
                places[key] = token_regions(vlm, encoded)
            on_object = overlaps(places[key], boxes[which])
            if on_object.any():  # a box in a part of the picture that the processor cuts off
                hits = torch.isin(ids[:, on_object, 0], torch.tensor(names))
                spelled.append(hits.double().mean(1).tolist())
                of_spelled.append(clusters[-1])
    curves = {
        "confidence": mean_curve(confidence, axis="state", clusters=clusters),
        "text_confidence": mean_curve(text_confidence, axis="state", clusters=clusters),
    }
    scalars = {
        "confidence": mean_scalar([sum(sample) / len(sample) for sample in confidence], clusters=clusters),
        "text_confidence": mean_scalar([sum(sample) / len(sample) for sample in text_confidence], clusters=clusters),
    }
    if spelled:
        curves["correspondence"] = mean_curve(spelled, axis="state", clusters=of_spelled)
        scalars["correspondence"] = mean_scalar([max(sample) for sample in spelled], clusters=of_spelled)
        with_some = [row for row, sample in enumerate(spelled) if max(sample) > 0]
        if with_some:
            best_states = [spelled[row].index(max(spelled[row])) for row in with_some]
            scalars["best"] = mean_scalar(best_states, clusters=[of_spelled[row] for row in with_some])
    options = {"vision": "image tokens", "images": images_asked(pairs), "object": "any overlap with the box"}
    return result(len(pairs), scalars, curves, options, without_object=without)


SPEC = Metric(
    function=lens,
    needs="pairs",
    title="Logit lens",
    read="What the vision tokens would spell if they were answers. Correspondence is the share of the object’s tokens "
    "that spell its name; confidence is the probability of the likeliest entry, text beside vision. In the picture "
    "below, point at a patch to see its five likeliest entries at every state.",
    use="Point at wrong answers’ patches: an object that is spelled there was seen and lost later, one that never is "
    "was not recognised.",
    source=NEO,
    equation="pᵢ(l) = softmax(W_U norm(h[l]ᵢ))",
    unit=SHARE,
    units={"correspondence": SHARE, "best": ""},
    only_images="it asks what the patches of an object spell",
)
