"""A measurement made by hand: every form that a result may have, with names and texts that try to be markup."""

import pytest
from PIL import Image

from vfl.functionmap import ModelId
from vfl.measure.metrics_file import MeasuredOn, Metrics
from vfl.metrics.measure import known_metrics
from vfl.report.thumbnail import data_uri

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
L, H = 6, 4


def scalar(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "n": 8}


def curve(values, axis="layer", at=None):
    near = [[None if v is None else v + d for v in values] for d in (-0.05, 0.05)]
    return {
        "axis": axis,
        "at": at or list(range(len(values))),
        "value": values,
        "low": near[0],
        "high": near[1],
        "n": 8,
    }


def result(scalars=None, curves=None, **more):
    return {"n": 8, "scalars": scalars or {}, "curves": curves or {}, "options": {"interval": "95 %"}, **more}


RISING = [0.1, 0.2, 0.4, 0.5, 0.6, 0.7]
ACCURACY = result(
    {
        "counting/accuracy": scalar(0.9, 0.7, 0.95),
        "counting/no_image": scalar(0.3, 0.2, 0.4),
        "counting/chance": scalar(0.25),
        "counting/tolerated": scalar(3),
        f"{HOSTILE}/accuracy": scalar(0.5, 0.4, 0.6),
    },
    {
        "counting/accuracy": curve(RISING, "k"),
        "counting/logprob": curve([-v for v in RISING], "k"),
        f"{HOSTILE}/accuracy": curve(RISING, "k"),
    },
)
HEADS = result(
    {"heads": scalar(0.2, 0.1, 0.3)},
    {"heads": curve(RISING)},
    heads=[[0.1 * layer + 0.05 * head for head in range(H)] for layer in range(L)],
    top=[{"layer": 5, "head": 3, "value": 0.65}],
)
SHARP = {**HEADS, "weights": [[0.9 - 0.1 * layer for _ in range(H)] for layer in range(L)]}
LENS = result(
    {"confidence": scalar(0.3, 0.2, 0.4), "best": scalar(4, 3, 5)},
    {"confidence": curve([*RISING, 0.8], "state"), "correspondence": curve([*RISING, None], "state")},
    without_object=[HOSTILE, "plain"],
)
WINDOWS = [{"name": name, "first": n, "last": n + 1} for n, name in enumerate(("early", "mid", "late"))]
KNOCKOUT = result(
    {"counting/right": scalar(0.5, 0.4, 0.6)},
    {
        f"counting/{source} to last_token/{what}": curve([0.9, 0.5, 0.8], "window")
        for source in ("object", "object+1")
        for what in ("accuracy", "drop")
    },
    windows=WINDOWS,
)
SIMILAR = result(
    curves={
        f"{edit}/{modality}": curve([v + shift for v in RISING], "state")
        for shift, modality in ((0, "vision"), (0.2, "text"))
        for edit in ("mask", "skip")
    }
)
FOLLOWED = result(
    {"entry": scalar(2), "exit": scalar(5)},
    {"counting/accuracy": curve([0.9, 0.8, 0.9, 0.7], "skip")},
    skips=[{"name": name, "first": 0, "last": L} for name in ("none", "entry 2", "exit 5", "both")],
)
ABLATION = result(
    {f"polling/{name}": scalar(0.9, 0.8, 1) for name in ("right", "kept")}
    | {f"polling/{name}": scalar(0.4, 0.2, 0.6) for name in ("object", "random_object")}
    | {"polling/object/tokens": scalar(3, 2, 4), "gradients/residual": scalar(0.01, 0, 0.02)}
)


@pytest.fixture(scope="session")
def metrics():
    results = dict.fromkeys(known_metrics(), result({"vision": scalar(0.2, 0.1, 0.3)}, {"vision": curve(RISING)}))
    results |= {
        "drop": ACCURACY,
        "head_weight": HEADS,
        "concentration": SHARP,
        "lens": LENS,
        "knockout": KNOCKOUT,
        "token_ablation": ABLATION,
        "similarity": SIMILAR,
        "recommended": FOLLOWED,
    }
    return Metrics(
        model=ModelId(id=f"owner/{HOSTILE}", family="Qwen2.5-VL", num_layers=L),
        data=MeasuredOn(kind="probes", name=HOSTILE, sha256="ab" * 32, n=8, functions={"counting": 4, HOSTILE: 4}),
        settings={"options": {"drop": {"ks": [1, 2]}}, "data": HOSTILE},
        metrics=results,
        not_measured={"swap": HOSTILE} if "swap" not in results else {},
        seconds=dict.fromkeys(results, 1.5),
    )


@pytest.fixture(scope="session")
def pictures():
    """Two pictures of 2 x 2 patches and one token without a place; what patch v spells at state s is "s:v"."""
    states, count = L + 1, 5
    regions = [[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64], [32, 32, 64, 64], None]
    tokens = [f"{state}:{token}" for state in range(states) for token in range(count)] + [HOSTILE]
    top = [place for n in range(states * count) for place in (n, *[len(tokens) - 1] * 4)]
    picture = {
        "question": HOSTILE,
        "answer": "2",
        "image": data_uri(Image.new("RGB", (64, 64), "#88aacc")),
        "size": [64, 64],
        "boxes": [[4, 4, 20, 20]],
        "regions": regions,
        "states": states,
        "tokens": tokens,
        "top": top,
        "share": [900, 30, 20, 10, 5] * (states * count),
    }
    return [picture, picture]
