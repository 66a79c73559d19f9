"""Layers that vision tokens may skip, from two curves, and what becomes of the answers when they do.

    late entry at k:  dbar_V(l) <= eps and VAR(l) <= small max VAR for all l < k      (the largest such k)
    early exit at k:  VAR(l) <= small max VAR for all l >= k                          (the smallest such k)

dbar_V(l) is the cosine distance of vision states before and after layer l, VAR(l) the attention mass that the query
which predicts the answer puts on the image (mean over heads). Source: "Skip-It" (Hartman et al.), which gives the rule
and no numbers: both thresholds are options.
"""

from collections.abc import Sequence

from vfl.engine.derived_caches import late_entries
from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.engine.skip.skip import Skip
from vfl.engine.skip.speed import compare_speed
from vfl.errors import InputError
from vfl.metrics.accuracy import TOLERANCE, accuracy_along
from vfl.metrics.cosine import EPS, adjacent_distances
from vfl.metrics.edited_prompts import check_pairs
from vfl.metrics.prompts import prompts_of
from vfl.metrics.result import Result, cluster_of, mean_curve, no_scalar
from vfl.metrics.spec import SKIP, Metric
from vfl.metrics.var import SMALL, masses
from vfl.models.vlm import VLM
from vfl.probes.asking import Asked
from vfl.probes.pair import Pair, Which


def recommended(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    eps: float = EPS,
    small: float = SMALL,
    tolerance: float = TOLERANCE,
    timing: bool = True,
    tokens: int = 16,
) -> Result:
    """The recommended entry and exit of vision tokens, with accuracy and speed of a run that follows them.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; the curves are those of their target images, accuracy is over both images.
        eps: largest distance of a layer that vision tokens may skip at the beginning.
        small: largest attention mass on the image of a layer that may be skipped, as a share of the peak's.
        tolerance: how much accuracy may fall to count as tolerated.
        timing: measure the speed on the first pair; the only numbers here that differ from run to run.
        tokens: length of the timed answers.

    Returns:
        Curves "distance" and "attention" over layers (bootstrap over pairs) and "f/accuracy", "f/logprob" for each
        function f at skip = 0 (plain), 1 (late entry), 2 (early exit), 3 (both); scalars "entry", "exit", those of
        `accuracy_along`, and with `timing` "speedup" (plain over skipping time of an answer) and "cache" (share of the
        plain cache's memory), without intervals. "skips": what each point of skip is called, with the first and last
        layer of vision tokens.

    Raises:
        InputError: without pairs, for a `small` outside of 0 .. 1, or a model whose vision states depend on later text.
    """
    check_pairs(pairs, "recommended")
    check(vlm, small=small)
    distances, attention = [], []
    for encoded in prompts_of(vlm, pairs):
        distances.append(adjacent_distances(vlm, encoded)[0, 0].tolist())
        attention.append(masses(vlm, encoded)[0].mean(-1).tolist())
    clusters = [cluster_of(pair) for pair in pairs]
    curves = {
        "distance": mean_curve(distances, clusters=clusters),
        "attention": mean_curve(attention, clusters=clusters),
    }
    entry, exit = entry_and_exit(curves["distance"]["value"], curves["attention"]["value"], eps, small)
    num_layers = vlm.num_layers
    spans = ((0, num_layers), (entry, num_layers), (0, exit), (entry, exit))
    skips = [Skip(num_layers, *span) for span in spans]

    enters = any(skip.entry and skip.visible for skip in skips)

    def plans_of(images: Sequence[tuple[Pair, Which]], asked: Sequence[Asked]) -> list[tuple[Asked, list[Plan]]]:
        prompts = [one.encoded for one in asked]
        entered = late_entries(vlm, prompts, [entry] if enters else [])
        return [(one, [plan_of(skip, *caches) for skip in skips]) for one, caches in zip(asked, entered, strict=True)]

    options = {"eps": eps, "small": small, "query": "predicts", "timing": timing}
    followed = accuracy_along(
        vlm, pairs, range(len(skips)), plans_of, axis="skip", tolerance=tolerance, options=options
    )
    names = ("none", f"entry {entry}", f"exit {exit}", "both")
    followed["options"]["skips"] = ["none", "late entry", "early exit", "both"]
    followed["skips"] = [
        {"name": name, "first": skip.entry, "last": skip.exit - 1} for name, skip in zip(names, skips, strict=True)
    ]
    followed["curves"] = curves | followed["curves"]
    ordered = {name: value for name, value in followed["scalars"].items() if not name.endswith("/tolerated")}
    layers = {"entry": no_scalar(entry, len(pairs)), "exit": no_scalar(exit, len(pairs))}
    followed["scalars"] = layers | ordered
    if timing:
        encoded = next(iter(prompts_of(vlm, pairs[:1])))
        plain, skipped = compare_speed(vlm, encoded, skips[-1], tokens=tokens)
        followed["scalars"]["speedup"] = no_scalar(plain.seconds / skipped.seconds, 1)
        followed["scalars"]["cache"] = no_scalar(skipped.cache_bytes / plain.cache_bytes, 1)
        followed["options"]["tokens"] = tokens
    return followed


def entry_and_exit(
    distance: Sequence[float], attention: Sequence[float], eps: float = EPS, small: float = SMALL
) -> tuple[int, int]:
    """(k_in, k_out) by the rule above; vision tokens run at layers k_in .. k_out - 1, the peak's among them."""
    num_layers = len(attention)
    least = small * max(attention)
    entry = 0
    while entry < num_layers and distance[entry] <= eps and attention[entry] <= least:
        entry += 1
    exit = num_layers
    while exit > 0 and attention[exit - 1] <= least:
        exit -= 1
    return entry, exit


def plan_of(skip: Skip, entered: ImageCache | None = None) -> Plan:
    """A skip as a plan: what the text reads at each layer, with the image cache that entered late where one is read."""
    visible = skip.visible
    hidden = Plan.hide([layer for layer in range(skip.num_layers) if layer not in visible])
    if skip.entry == 0 or not visible:
        return hidden
    assert entered is not None
    return hidden | Plan.swap(visible, entered)


def check(vlm: VLM, *, small: float = SMALL) -> None:
    """Raises InputError for a `small` outside of 0 .. 1."""
    if not 0 <= small < 1:
        raise InputError(f"small={small}: give a share of the peak's attention, from 0 to below 1.")


SPEC = Metric(
    function=recommended,
    check=check,
    needs="pairs",
    title="Recommended late entry and early exit",
    read="The layers that vision tokens may skip by the two curves: enter after layers that neither move vision nor "
    "read it, leave after the last layer that reads it. The accuracies are the check: the plain model, then with "
    "the layers skipped; speed and cache are ratios to the plain model.",
    use="Run vfl skip with this entry and exit if both accuracies hold and the speed is worth it; otherwise lower "
    "small or eps.",
    source=SKIP,
    equation="enter at the largest k with d̄(l) ≤ ε and VAR(l) ≤ s · max VAR for l < k; leave where VAR stays below it",
    units={"distance": "cosine distance", "attention": "attention mass"},
)
