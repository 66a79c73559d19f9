"""Token swapping on probe pairs: the share of answers that change with one layer's vision states swapped.

    P_swap(y | U^(!=k), U~^(k), W) = prod_t P(y_t | y_<t, U^(!=k), U~^(k), W)

At one layer k the text reads the source image's vision keys and values instead of the target's; change rate(k) is the
share of kept pairs whose answer then differs ("Vision Function Layer in Multimodal LLMs", arXiv 2509.24791).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vfl.engine.row_start import Reading
from vfl.errors import InputError
from vfl.locate.curves import outcomes
from vfl.locate.pairs import groups, sweep_group, sweep_visits, visits
from vfl.locate.records import table_of
from vfl.metrics.accuracy import lot_size
from vfl.metrics.prompts import in_lots
from vfl.metrics.result import Result, by_function, mean_curve, no_scalar, result, share_curve, share_scalar
from vfl.metrics.spec import SHARE, VFL, Metric
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.pair import Pair

IMAGES = 3  # of a visit: target, source and control


def swap(vlm: VLM, pairs: Sequence[Pair], *, reading: Reading = "text") -> Result:
    """Change rate of every single layer, for each function of the pairs.

    Args:
        vlm: the model.
        pairs: probe pairs of any functions. Rates are over kept pairs: those answered correctly on both images.
        reading: who sees the swap, as in `vfl.sweep`.

    Returns:
        For each function f, curves "f/changed" and "f/followed" (shares, Wilson), "f/control" where a control image was
        swapped, "f/effect" (drop of the log-odds of answer against source answer, nats per token, bootstrap over
        pairs); scalars "f/accuracy" (over all targets), "f/kept" (share), "f/peak" (layer, null where nothing changed)
        and "f/peak_changed".
        A function without a kept pair has only its first two scalars.
    """
    if not pairs:
        raise InputError("The metric swap was asked for without probe pairs. Give at least one.")
    asker, layers = Asker(vlm), [(layer, layer) for layer in range(vlm.num_layers)]
    scalars: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for function, rows in by_function([pair.function for pair in pairs]).items():
        asked = groups(pairs[row] for row in rows)
        if reading == "text":
            size = lot_size(vlm, asker.ask(pairs[rows[0]], "image"), IMAGES)
            lots = in_lots((visit for group in asked for visit in visits(group)), size)
            records = [row for lot in lots for of_visit in sweep_visits(asker, lot, layers) for row in of_visit]
        else:
            records = [row for group in asked for row in sweep_group(asker, group, layers, reading=reading)]
        unswapped = [record for record in records if record["swap"] == "none"]
        names = [record["group"] or (record["pair_id"],) for record in unswapped]
        for name, key in (("accuracy", "target_correct"), ("kept", "kept")):
            scalars[f"{function}/{name}"] = share_scalar([record[key] for record in unswapped], clusters=names)
        if not any(record["kept"] for record in unswapped):
            continue
        data = outcomes(table_of(records), function, vlm.num_layers)
        single, of = slice(0, vlm.num_layers), data.group_of.tolist()
        changed = curves[f"{function}/changed"] = share_curve(data.changed[:, single], clusters=of)
        curves[f"{function}/followed"] = share_curve(data.followed[:, single], clusters=of)
        controlled = ~np.isnan(data.control[:, single]).any(axis=1)
        if controlled.any():
            of_controlled = data.group_of[controlled].tolist()
            curves[f"{function}/control"] = share_curve(data.control[controlled, single], clusters=of_controlled)
        finite = np.isfinite(data.effect[:, single]).all(axis=1)
        if finite.any():
            of_finite = data.group_of[finite].tolist()
            curves[f"{function}/effect"] = mean_curve(data.effect[finite, single], clusters=of_finite)
        peak = int(np.argmax(changed["value"]))
        scalars[f"{function}/peak"] = no_scalar(peak if changed["value"][peak] else None, data.kept)
        scalars[f"{function}/peak_changed"] = {name: changed[name][peak] for name in ("value", "low", "high")} | {
            "n": data.kept
        }
    options = {"reading": reading, "extent": "single layers", "over": "kept pairs"}
    return result(len(pairs), scalars, curves, options)


SPEC = Metric(
    function=swap,
    needs="pairs of images",
    title="Visual token swapping",
    read="Share of answers that change when one layer reads another image. Peaks are the layers where a function is "
    "decided; “followed” turned to the other image’s answer, and the control (another picture with the same "
    "answer) shows what mere disturbance does.",
    use="Use it for a first look, and vfl locate, which adds windows, significance and a map, before you protect or "
    "train layers by it.",
    source=VFL,
    equation="P_swap(y) = Πₜ P(yₜ | y_<t, U of the other image at layer k, U elsewhere, W)",
    units={
        "changed": SHARE,
        "followed": SHARE,
        "control": SHARE,
        "peak_changed": SHARE,
        "effect": "nats per token",
        "peak": "",
    },
)
