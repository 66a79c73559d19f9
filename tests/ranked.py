"""Several training runs one after the other in each rank, since the start of a process costs more than they do.

ranked.py RECIPE... [--resume]    in each of the processes that torchrun, or `warm.ranks`, starts

A recipe whose name ends with -tight runs where spread weights do not fit together on one device. Each rank writes the
exit codes to ranks.RANK.json beside the first recipe.
"""

import faulthandler
import gc
import json
import os
import sys
from pathlib import Path

from accelerate.state import AcceleratorState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from vfl.launching.ranks import leave
from vfl.train.callback import evaluation
from vfl.train.launch import main
from vfl.train.whole_weights import fits_whole

if __name__ == "__main__":
    faulthandler.dump_traceback_later(1700, exit=True)  # a rank that hangs says where
    options = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    recipes = [Path(argument) for argument in sys.argv[1:] if argument not in options]
    codes = {}
    gc.freeze()  # what is imported stays: no search for garbage looks at it again
    for recipe in recipes:
        evaluation.fits_whole = (lambda *_: False) if recipe.stem.endswith("-tight") else fits_whole
        codes[recipe.stem] = main([str(recipe), *options])
        gc.collect()
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    (recipes[0].parent / f"ranks.{os.environ['RANK']}.json").write_text(json.dumps(codes), encoding="utf-8")
    leave()
    sys.stderr.flush()
    # Groups of earlier runs in this process were never closed: what is left of them may abort an ordinary exit.
    os._exit(0)
