"""Functional redundancy: what a layer adds to what vision states tell about the answer.

    |MMSE(Y|X_l) - MMSE(Y|X_{l+1})| <= eps

X_l is the mean of an image's vision tokens at h[l], brought to unit norm, and Y the right answer, one-hot. The errors
are those of ridge regression, each image predicted from the others. Beside them stand the bound of Theorem 1 from the
geometric distance, 2 L^2 E[d(X_l, X_{l+1})] with L assumed, and the unique information (BROJA) of X_{l+1} about Y
beside X_l, with states sorted into a few clusters. Source: "Skip-It" (Hartman et al.).

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

from vfl.engine.states import between_layers, forward, is_image_token
from vfl.errors import InputError
from vfl.metrics.accuracy import IMAGES, asked_images, images_asked
from vfl.metrics.bounds import error_gap_bound
from vfl.metrics.edited_prompts import check_pairs
from vfl.metrics.prompts import prompts_of
from vfl.metrics.result import Result, by_function, mean_curve, mean_scalar, no_scalar, number, result
from vfl.metrics.spec import SKIP, Metric
from vfl.metrics.unique import unique_information
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM
from vfl.probes.match import words
from vfl.probes.pair import Pair

Floats = NDArray[np.float64]
EPS = 0.05  # the paper names none
RIDGE = 0.1  # of the mean squared norm of the centred states
CLUSTERS = 3
MOST_ANSWERS = 8  # an alphabet beyond this is not small


def functional(
    vlm: VLM,
    pairs: Sequence[Pair],
    *,
    eps: float = EPS,
    ridge: float = RIDGE,
    lipschitz: float = 1.0,
    clusters: int = CLUSTERS,
    seed: int = 0,
) -> Result:
    """Errors of predicting the answer from pooled vision states, layer by layer, for each function.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions; target and source images are samples of their own.
        eps: a layer is redundant where the error changes by no more than this.
        ridge: strength of the regression, see RIDGE.
        lipschitz: L of Theorem 1, an assumption.
        clusters: alphabet of the states for the unique information; 0 leaves it out. With few images it comes out too
            large: clusters then tell images apart.
        seed: of the clustering.

    Returns:
        For each function f, curves "f/error" over states h[0] .. h[L] (squared error, bootstrap over
        images), "f/gain" over layers (error before minus after), "f/bound" (Theorem 1), and "f/unique" (nats, without
        an interval; left out where a function has more than eight answers); scalars "f/error" (the last state's),
        "f/guessing" (predicting the answers' frequencies) and "f/unique" (mean over layers). "redundant": layers with
        |gain| <= eps by function.

    Raises:
        InputError: without pairs, or for a ridge that is not above 0.
    """
    check_pairs(pairs, "functional")
    if ridge <= 0:
        raise InputError(f"ridge={ridge}: without it every image would be predicted from too few others; give > 0.")
    curves: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    redundant: dict[str, list[int]] = {}
    for function, rows in by_function([pair.function for pair in pairs]).items():
        mine = [pairs[row] for row in rows]
        states = np.stack([pooled_states(vlm, encoded) for encoded in prompts_of(vlm, mine, IMAGES)])  # (N, L+1, d)
        spoken = [" ".join(words(answer)) for pair in mine for answer in _answers(pair)]
        names = sorted(set(spoken))
        answers = np.array([names.index(answer) for answer in spoken])
        targets = np.eye(len(names))[answers]
        errors = np.stack([left_out_errors(states[:, at], targets, ridge) for at in range(states.shape[1])], axis=1)
        gains = errors[:, :-1] - errors[:, 1:]
        distances = 1 - (states[:, :-1] * states[:, 1:]).sum(-1)
        curves[f"{function}/error"] = mean_curve(errors, axis="state")
        gain = curves[f"{function}/gain"] = mean_curve(gains)
        curves[f"{function}/bound"] = mean_curve(error_gap_bound(distances, lipschitz))
        scalars[f"{function}/error"] = mean_scalar(errors[:, -1])
        frequencies = targets.mean(0)
        scalars[f"{function}/guessing"] = no_scalar(1 - float((frequencies**2).sum()), len(answers))
        redundant[function] = [layer for layer, value in enumerate(gain["value"]) if abs(value) <= eps]
        if clusters and len(names) <= MOST_ANSWERS and len(answers) > clusters:
            unique = _unique(states, answers, clusters, seed)
            curves[f"{function}/unique"] = {
                "axis": "layer",
                "at": list(range(vlm.num_layers)),
                "value": [number(value) for value in unique],
                "low": [None] * len(unique),
                "high": [None] * len(unique),
                "n": len(answers),
            }
            scalars[f"{function}/unique"] = no_scalar(sum(unique) / len(unique), len(answers))
    options = {
        "eps": eps,
        "ridge": ridge,
        "lipschitz": lipschitz,
        "clusters": clusters,
        "seed": seed,
        "vision": "mean over image tokens, unit norm",
        "predictor": "ridge regression, leave one image out",
        "images": images_asked(pairs),
    }
    return result(len(pairs), scalars, curves, options, redundant=redundant)


def pooled_states(vlm: VLM, encoded: Encoded) -> Floats:
    """(L+1, d): the mean over image tokens at h[0] .. h[L], each of unit norm."""
    here = is_image_token(vlm, encoded)
    found: list[torch.Tensor] = []

    def pool(state: torch.Tensor) -> None:
        mean = state[0, here.to(state.device)].double().mean(0)
        found.append(torch.nn.functional.normalize(mean, dim=0).cpu())

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        if layer_idx == 0:
            pool(before)
        pool(after)

    with between_layers(vlm.layers, visit):
        forward(vlm, encoded)
    return torch.stack(found).numpy()


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


def _unique(states: Floats, answers: NDArray[np.int64], clusters: int, seed: int) -> list[float]:
    """Unique information of each layer's output about the answers beside its input, states as cluster numbers."""
    codes = []
    for at in range(states.shape[1]):
        with warnings.catch_warnings():  # equal states leave a cluster empty, which is no matter
            warnings.simplefilter("ignore", UserWarning)
            _, code = kmeans2(states[:, at], clusters, minit="++", rng=np.random.default_rng(seed))
        codes.append(code)
    found = []
    for before, after in pairwise(codes):
        joint = np.zeros((int(answers.max()) + 1, clusters, clusters))
        np.add.at(joint, (answers, before, after), 1 / len(answers))
        found.append(unique_information(joint, iterations=500))
    return found


def _answers(pair: Pair) -> list[str]:
    """The right answers on the images that the pair is asked on."""
    return [pair.source_answer if which == "source_image" else pair.answer for which in asked_images(pair)]


SPEC = Metric(
    function=functional,
    needs="pairs",
    title="Functional redundancy",
    read="How much better the answer is predicted from the next layer’s states than from this one’s. Near "
    "0 the layer may be skipped; a large bound of it proves nothing.",
    source=SKIP,
    equation="|MMSE(Y | X_l) − MMSE(Y | X_l+1)| ≤ ε",
    unit="squared error",
    units={"unique": "nats"},
)
