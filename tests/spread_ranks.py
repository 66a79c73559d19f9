"""Ranks that spread tiny models of several families and compare them with what they were: spread_ranks.py FOLDER...

Each writes what it found to spread.RANK.json beside the first folder.
"""

import json
import os
import sys
from pathlib import Path

import tiny
import torch
from peft import get_peft_model
from torch.distributed.tensor import DTensor

import vfl
from vfl.launching.ranks import leave
from vfl.train.adapter.lora import build_lora
from vfl.train.fsdp import is_spread, spread, whole
from vfl.train.whole_weights import fits_whole

# Modules that every family has.
OPTIONS = {"r": 2, "init_lora_weights": False, "target_modules": ["q_proj", "o_proj"]}


def held_numbers(vlm: vfl.VLM) -> int:
    """Of the layers' frozen weights, those that lie on this rank."""
    frozen = [p for p in vlm.layers.parameters() if not p.requires_grad]
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in frozen)


def compared(folder: Path, rank: int) -> dict[str, float]:
    """Differences of logits, and the share of the layers' weights that this rank holds."""
    vlm = vfl.load(str(folder), dtype="float64", device="cpu")
    torch.manual_seed(0)
    lora = build_lora(vlm.model, range(vlm.num_layers), OPTIONS)
    model = get_peft_model(vlm.model, lora).eval()
    inputs = vlm.encode(tiny.messages(tiny.picture(seed=rank))).inputs
    with torch.no_grad():
        before = model(**inputs).logits
        said = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        total = sum(p.numel() for p in vlm.layers.parameters() if not p.requires_grad)
        spread(model, vlm.parts.decoder, vlm.layers, torch.device("cpu"))
        held = held_numbers(vlm)
        apart = model(**inputs).logits
        says = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        with whole(vlm.layers):
            if rank == 0:  # alone: no other takes part
                model(**inputs)
                together = model(**inputs).logits
            else:
                together = before
        again = model(**inputs).logits
        after = held_numbers(vlm)
    return {
        "held": held / total,
        "apart": float((apart - before).abs().max()),
        "together": float((together - before).abs().max()),
        "again": float((again - before).abs().max()),
        "held after": after / total,
        "says": float(torch.equal(said, says)),
        "known": float(is_spread(vlm.layers) and fits_whole(model.parameters(), vlm.device)),
    }


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    folders = [Path(argument) for argument in sys.argv[1:]]
    found = {folder.name: compared(folder, rank) for folder in folders}
    (folders[0].parent / f"spread.{rank}.json").write_text(json.dumps(found))
    leave()
    os._exit(0)
