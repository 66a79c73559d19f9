"""Functional redundancy: what a layer adds to what vision states tell about the answer.

    |MMSE(Y|X_l) - MMSE(Y|X_{l+1})| <= eps

X_l is the mean of an image's vision tokens at h[l], brought to unit norm, and Y the right answer, one-hot. The errors
are those of ridge regression, each image predicted from the others. Where they are no lower than those of guessing by
the other images' answers, nothing was measured: two states that tell nothing of the answer differ by nothing. Beside
them stand what the bound of Theorem 1 would be, 2 C^2 E[d(X_l, X_{l+1})] with a Lipschitz constant C that is assumed,
not known, and the unique information (BROJA) of X_{l+1} about Y beside X_l, with states sorted into a few clusters. A
layer is redundant only where the answer's query does not look at the image either (VAR). Source: "Skip-It" (Hartman et
al.).

Legend: N images, L layers, d model width.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from vfl.engine.states import between_layers, is_image_token
from vfl.errors import InputError
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.bounds import error_gap_bound
from vfl.metrics.edited_prompts import check_pairs
from vfl.metrics.prompts import prompts_of
from vfl.metrics.result import (
    Clusters,
    Result,
    by_function,
    cluster_of,
    mean_curve,
    mean_scalar,
    no_scalar,
    number,
    result,
)
from vfl.metrics.spec import SKIP, Metric
from vfl.metrics.unique import information_parts
from vfl.metrics.var import SMALL, measured_masses
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.match import words
from vfl.probes.pair import Pair

Floats = NDArray[np.float64]
EPS = 0.05  # the paper names none
RIDGE = 0.1  # of the mean squared norm of the centred states
CLUSTERS = 3
ROUNDING = 1e-6  # of errors, in units of 1
MOST_ANSWERS = 8  # an alphabet beyond this is not small


def functional(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    eps: float = EPS,
    small: float = SMALL,
    ridge: float = RIDGE,
    lipschitz: float = 1.0,
    clusters: int = CLUSTERS,
    seed: int = 0,
) -> Result:
    """Errors of predicting the answer from pooled vision states, layer by layer, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; target and source images are samples of their own.
        eps: a layer is redundant where the error changes by no more than this, with its whole interval.
        small: and where the attention mass on the image is at most this share of the peak's.
        ridge: strength of the regression, see RIDGE.
        lipschitz: C of Theorem 1, an assumption: nothing here says how fast the expected answer changes with the state.
        clusters: alphabet of the states for the unique information; 0 leaves it out. With few images it comes out too
            large: clusters then tell images apart.
        seed: of the clustering.

    Returns:
        For each function f, curves "f/error" over states h[0] .. h[L] (squared error, bootstrap over pairs), "f/gain"
        over layers (error before minus after), "f/assumed_bound" (Theorem 1 with `lipschitz`), "f/attention" (VAR, mean
        over heads), and the parts of the information about the answer: "f/unique" (of the layer's output alone),
        "f/unique_before" (of its input alone), "f/shared" and "f/synergy" (nats, without intervals; left out where a
        function has more than eight answers). Scalars "f/error" (the last state's), "f/guessing" (predicting the
        frequencies of the other images' answers) and "f/unique" (mean over layers). "redundant": layers by function,
        see `redundant_layers`. "undecided": functions of which nothing was measured, with the reason.

    Raises:
        InputError: without pairs, for a ridge that is not above 0, or a `small` outside of 0 .. 1.
    """
    check_pairs(pairs, "functional")
    check(vlm, small=small, ridge=ridge)
    curves: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    redundant: dict[str, list[int]] = {}
    undecided: dict[str, str] = {}
    for function, rows in by_function([pair.function for pair in pairs]).items():
        mine = [pairs[row] for row in rows]
        if sum(len(asked_images(pair)) for pair in mine) < 2:
            redundant[function] = []
            undecided[function] = "it has one image, and no other to predict its answer from; give more pairs"
            continue
        seen = [states_and_attention(vlm, encoded) for encoded in prompts_of(vlm, mine, IMAGES)]
        states, attention = (np.stack(part) for part in zip(*seen, strict=True))  # (N, L+1, d), (N, L)
        spoken = [" ".join(words(answer)) for pair in mine for answer in _answers(pair)]
        names = sorted(set(spoken))
        answers = np.array([names.index(answer) for answer in spoken])
        targets = np.eye(len(names))[answers]
        errors = np.stack([left_out_errors(states[:, at], targets, ridge) for at in range(states.shape[1])], axis=1)
        owners = [cluster_of(pair) for pair in mine for _ in asked_images(pair)]
        gains = errors[:, :-1] - errors[:, 1:]
        distances = 1 - (states[:, :-1] * states[:, 1:]).sum(-1)
        curves[f"{function}/error"] = mean_curve(errors, axis="state", clusters=owners)
        curves[f"{function}/gain"] = mean_curve(gains, clusters=owners)
        curves[f"{function}/assumed_bound"] = mean_curve(error_gap_bound(distances, lipschitz), clusters=owners)
        curves[f"{function}/attention"] = mean_curve(attention, clusters=owners)
        guesses = left_out_guesses(targets)
        scalars[f"{function}/error"] = mean_scalar(errors[:, -1], clusters=owners)
        scalars[f"{function}/guessing"] = mean_scalar(guesses, clusters=owners)
        redundant[function] = redundant_layers(errors, guesses, attention, eps, small, owners)
        if not informed(errors, guesses, owners).any():
            undecided[function] = (
                "at no state is the error lower than that of guessing: these images don't show what the states tell of "
                "the answer, so no layer is listed; give more pairs"
            )
        if clusters and len(names) <= MOST_ANSWERS and len(answers) > clusters:
            parts = _information(states, answers, clusters, seed)
            for name, values in parts.items():
                curves[f"{function}/{name}"] = {
                    "axis": "layer",
                    "at": list(range(vlm.num_layers)),
                    "value": [number(value) for value in values],
                    "low": [None] * len(values),
                    "high": [None] * len(values),
                    "n": len(answers),
                }
            unique = parts["unique"]
            scalars[f"{function}/unique"] = no_scalar(sum(unique) / len(unique), len(answers))
    options = {
        "eps": eps,
        "small": small,
        "ridge": ridge,
        "lipschitz": lipschitz,
        "clusters": clusters,
        "seed": seed,
        "vision": "mean over image tokens, unit norm",
        "predictor": "ridge regression, leave one image out",
        "images": images_asked(pairs),
    }
    return result(len(pairs), scalars, curves, options, redundant=redundant, undecided=undecided)


def redundant_layers(
    errors: Floats,
    guesses: Floats,
    attention: Floats,
    eps: float = EPS,
    small: float = SMALL,
    clusters: Clusters = None,
) -> list[int]:
    """Layers that add no more than eps, of which that was measured, and at which the image is not looked at.

    Args:
        errors: (N, L+1) of predicting the answer from each state.
        guesses: (N,) errors of guessing it.
        attention: (N, L) attention mass on the image.
        eps: what the interval of the error's change must not leave, -eps .. eps.
        small: largest attention mass, as a share of the peak's.
        clusters: N names of what the images belong to, for the intervals.

    Returns:
        Layers l of which the state before or after is `informed`.
    """
    gain, mass = mean_curve(errors[:, :-1] - errors[:, 1:], clusters=clusters), attention.mean(0)
    there = informed(errors, guesses, clusters)
    return [
        layer
        for layer, (low, high) in enumerate(zip(gain["low"], gain["high"], strict=True))
        if low is not None and -eps <= low and high <= eps  # one sample has no interval
        if (there[layer] or there[layer + 1]) and mass[layer] <= small * mass.max()
    ]


def informed(errors: Floats, guesses: Floats, clusters: Clusters = None) -> NDArray[np.bool_]:
    """(L+1,): at which states the answer is predicted better than by guessing, with the whole interval."""
    better = mean_curve(guesses[:, None] - errors, clusters=clusters)
    return np.array([low is not None and low > ROUNDING for low in better["low"]])


def left_out_guesses(targets: Floats) -> Floats:
    """(N,) squared errors of predicting each row by the mean of the others, N at least 2."""
    others = (targets.sum(0) - targets) / (len(targets) - 1)
    return np.asarray(((targets - others) ** 2).sum(1))


def states_and_attention(vlm: VLM, encoded: Encoded) -> tuple[Floats, Floats]:
    """(L+1, d): the mean over image tokens at h[0] .. h[L], each of unit norm; (L,): attention mass on the image."""
    here = is_image_token(vlm, encoded)
    pooled: list[torch.Tensor] = []

    def pool(state: torch.Tensor) -> None:
        mean = state[0, here.to(state.device)].double().mean(0)
        pooled.append(torch.nn.functional.normalize(mean, dim=0).cpu())

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        if layer_idx == 0:
            pool(before)
        pool(after)

    with between_layers(vlm.layers, visit):
        attention = measured_masses(vlm, encoded)[0].mean(-1)
    return torch.stack(pooled).numpy(), attention.numpy()


def left_out_errors(states: Floats, targets: Floats, ridge: float = RIDGE) -> Floats:
    """(N,) squared errors of ridge regression with an intercept, each row predicted from the others (closed form).

    Args:
        states: (N, d), N at least 2.
        targets: (N, k).
        ridge: strength, relative to the mean squared norm of the centred states.
    """
    count = len(states)
    centred = states - states.mean(0)
    kernel = centred @ centred.T
    strength = max(ridge * float(np.trace(kernel)) / count, 1e-12)
    hat = np.linalg.solve(kernel + strength * np.eye(count), kernel) + 1 / count
    residuals = (targets - hat @ targets) / (1 - np.diagonal(hat))[:, None]
    return np.asarray((residuals**2).sum(1))


def _information(states: Floats, answers: NDArray[np.int64], clusters: int, seed: int) -> dict[str, list[float]]:
    """What each layer's input and output tell of the answers, in parts (BROJA), states as cluster numbers."""
    codes = []
    for at in range(states.shape[1]):
        with warnings.catch_warnings():  # equal states leave a cluster empty, which is no matter
            warnings.simplefilter("ignore", UserWarning)
            _, code = kmeans2(states[:, at], clusters, minit="++", rng=np.random.default_rng(seed))
        codes.append(code)
    parts: dict[str, list[float]] = {}
    for before, after in pairwise(codes):
        joint = np.zeros((int(answers.max()) + 1, clusters, clusters))
        np.add.at(joint, (answers, before, after), 1 / len(answers))
        for name, value in information_parts(joint, iterations=500).items():
            parts.setdefault(name, []).append(value)
    return parts


def _answers(pair: Pair) -> list[str]:
    """The right answers on the images that the pair is asked on."""
    return [pair.source_answer if which == "source_image" else pair.answer for which in asked_images(pair)]


def check(vlm: VLM, *, small: float = SMALL, ridge: float = RIDGE) -> None:
    """Raises InputError for a ridge that is not above 0, or a `small` outside of 0 .. 1."""
    if ridge <= 0:
        raise InputError(f"ridge={ridge}: without it every image would be predicted from too few others; give > 0.")
    if not 0 <= small <= 1:
        raise InputError(f"small={small}: give a share of the peak's attention, from 0 to 1.")


SPEC = Metric(
    function=functional,
    check=check,
    needs="pairs",
    title="Functional redundancy",
    read="How much better the answer is predicted from the next layer’s states than from this one’s. A layer is listed "
    "as redundant where the whole interval lies within ε of 0, the image is hardly looked at, and the error is lower "
    "than that of guessing: where it is not, nothing was measured. The assumed bound holds only if the expected answer "
    "changes no faster with the state than the option lipschitz says, which nobody has checked.",
    use="Treat the listed layers as candidates alone, and verify them with late_entry or drop; with few samples raise "
    "the number of pairs first.",
    source=SKIP,
    equation="|MMSE(Y | X_l) − MMSE(Y | X_l+1)| ≤ ε, and VAR(l) ≤ s · max VAR",
    unit="squared error",
    units={
        "unique": "nats",
        "unique_before": "nats",
        "shared": "nats",
        "synergy": "nats",
        "attention": "attention mass",
    },
)
