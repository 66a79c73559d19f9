"""How to read each metric, and where it comes from: one row a metric, in the order of the page.

A metric without a row is shown with the first paragraph of its function's docstring.
"""

import inspect
from dataclasses import dataclass

from vfl.measure.report.panels import SHARE
from vfl.metrics import measure


@dataclass(frozen=True)
class Guide:
    """Title, how to read the figure, source; `unit` of values whose names have none of their own."""

    title: str
    read: str
    source: str
    unit: str = ""


EARLY = "“Unmasking the functionality of early layers in VLMs”, Hartman et al."
SKIP = "“Skip-It”, Hartman et al."
NEO = "“Towards Interpreting Visual Information Processing in Vision-Language Models”, Neo et al., ICLR 2025"
VFL = "“Vision Function Layer in Multimodal LLMs”, Shi et al., arXiv 2509.24791"
HEADS = "“Unveiling Visual Perception in Language Models”, Bi et al., CVPR 2025"

GUIDES: dict[str, Guide] = {
    "mask": Guide(
        "Masking the first layers",
        "In layers 0 to k−1 the text does not see the image, nor the image the text before it. Read it beside late "
        "entry: accuracy that falls here but holds there says that the first layers only carry the image to where it "
        "is used. The dashed level is the model without an image, the dotted one is guessing; below them nothing is "
        "left to lose.",
        EARLY,
    ),
    "late_entry": Guide(
        "Late entry",
        "The vision tokens skip layers 0 to k−1 and enter at layer k as the projector made them. Up to the k where "
        "accuracy leaves its first value, these layers add nothing to the image that this question needs.",
        EARLY,
    ),
    "cosine": Guide(
        "Distance of adjacent layers",
        "How far a layer turns a token’s state: 0 is not at all. Vision near 0 where text moves marks layers that copy "
        "the image along. The last point compares states before the final norm.",
        f"{EARLY}; geometric redundancy in {SKIP}",
        "cosine distance",
    ),
    "similarity": Guide(
        "States after masking and skipping",
        "Similarity of a token’s state to that of the plain model when the first layers are masked or skipped. A curve "
        "that returns to 1 has recovered; text that stays low carries the damage to the answer.",
        EARLY,
        "cosine similarity",
    ),
    "persistence": Guide(
        "Logit-lens persistence",
        "Share of vision tokens whose likeliest vocabulary entry is still the first one. High early values say that "
        "the first layers keep the image tokens as they are.",
        EARLY,
        SHARE,
    ),
    "injection": Guide(
        "Causal injection",
        "Below layer n the text reads an unrelated image, from n on the right one. Accuracy stays while nothing below "
        "n was needed; where it falls, the text has begun to take from the image. At n = L only the unrelated image is "
        "left.",
        EARLY,
    ),
    "token_ablation": Guide(
        "Ablating vision tokens",
        "Share of right answers that turn wrong when a set of vision tokens is replaced by the mean embedding. Compare "
        "sets of equal size: the object’s own tokens (and a ring or two around them) against as many random ones.",
        NEO,
        SHARE,
    ),
    "lens": Guide(
        "Logit lens",
        "What the vision tokens would spell if they were answers. Correspondence is the share of the object’s tokens "
        "that spell its name; confidence is the probability of the likeliest entry. In the picture below, point at a "
        "patch to see its five likeliest entries at every state.",
        NEO,
        SHARE,
    ),
    "knockout": Guide(
        "Attention knockout",
        "Within a window of layers, the target no longer reads the source. Accuracy falls, and the plain answer’s "
        "token loses probability, in the windows where that edge carries the answer.",
        NEO,
    ),
    "functional": Guide(
        "Functional redundancy",
        "How much better the answer is predicted from the next layer’s states than from this one’s. Near "
        "0 the layer may be skipped; a large bound of it proves nothing.",
        SKIP,
        "squared error",
    ),
    "informational": Guide(
        "Informational redundancy",
        "Bounds on what a layer adds that the layer before did not hold. Compare the upper bound with log|X|, the most "
        "it could ever be: near that it says nothing.",
        SKIP,
        "nats",
    ),
    "proximal": Guide(
        "Proximal redundancy",
        "Share of tokens that a layer moves by no more than tau. Vision near 100 % in the first layers allows late "
        "entry, together with little attention to the image there (see the visual attention ratio).",
        SKIP,
        SHARE,
    ),
    "var": Guide(
        "Visual attention ratio",
        "Attention of the position that predicts the answer: how much goes to the image, to other text, and to itself "
        "(together 1). Layers with little to the image may lose it: early exit from the last rise on. The table below "
        "shows every head.",
        f"{SKIP}; SVAR sums the layers 5 to 18 of 32, in proportion",
        "attention mass",
    ),
    "recommended": Guide(
        "Recommended late entry and early exit",
        "The layers that vision tokens may skip by the two curves: enter after layers that neither move vision nor "
        "read it, leave after the last layer that reads it. The accuracies are the check: the plain model, then with "
        "the layers skipped; speed and cache are ratios to the plain model.",
        SKIP,
    ),
    "drop": Guide(
        "Vision token dropping",
        "Accuracy with the image hidden from the text in the last k layers. Each function holds until its own layers "
        "are hidden. At k = L the model never sees the image: the no-image level.",
        f"{VFL}, table 1",
    ),
    "swap": Guide(
        "Visual token swapping",
        "Share of answers that change when one layer reads another image. Peaks are the layers where a function is "
        "decided; “followed” turned to the other image’s answer, and the control (another picture with the same "
        "answer) shows what mere disturbance does.",
        VFL,
    ),
    "head_weight": Guide(
        "Image attention of heads",
        "Attention of each head to the image tokens. Few look at it much; dark cells are those.",
        HEADS,
        "attention mass",
    ),
    "concentration": Guide(
        "Concentration of heads",
        "How sharply a head looks within the image: 0 is evenly over all tokens, 1 is a single token. Read it beside "
        "the image attention: a sharp head that hardly looks matters little.",
        HEADS,
        "concentration",
    ),
    "head_score": Guide(
        "Visual head score",
        "Image attention raised by concentration, most in early layers. The highest are candidates for masking; the "
        "constants of the weighting are not published, so compare ranks rather than values.",
        HEADS,
        "score",
    ),
    "head_masking": Guide(
        "Masking visual heads",
        "Accuracy with the highest-scored heads of a third of the depth switched off, beside as many random ones. The "
        "gap between the two is what is special about those heads.",
        HEADS,
        SHARE,
    ),
    "visual_prompt": Guide(
        "Drawing a box",
        "Accuracy with the object’s outline drawn into the image (on) and without (off), and how much attention falls "
        "inside the box. A gain without more attention there is not due to looking.",
        HEADS,
        SHARE,
    ),
}


def guide_of(name: str) -> Guide:
    """How to read a metric."""
    if name in GUIDES:
        return GUIDES[name]
    function = (measure.OF_PROMPTS | measure.OF_PAIRS)[name]
    told = (inspect.getdoc(function) or "").split("\n\n")[0]
    return Guide(name.replace("_", " ").capitalize(), " ".join(told.split()), function.__module__)


def ordered(names: list[str]) -> list[str]:
    """Metrics in the page's order, those without a row last."""
    places = {name: place for place, name in enumerate(GUIDES)}
    return sorted(names, key=lambda name: places.get(name, len(places)))
