"""Supervised fine-tuning with LoRA in the layers of chosen functions.

    python train/sft.py recipes/qwen2.5-vl-7b/sft.yaml data.train=YOUR.jsonl data.images=IMAGES
    python train/sft.py RECIPE --check                 # what is known before the first step, and no further
    python train/sft.py RECIPE --resume                # on after an interruption

One machine with eight GPUs, by any launcher:

    torchrun --nproc-per-node 8 train/sft.py RECIPE
    accelerate launch --num_processes 8 train/sft.py RECIPE
    deepspeed --num_gpus 8 train/sft.py RECIPE deepspeed=zero2

Several machines: sbatch train/slurm.sh train/sft.py RECIPE deepspeed=zero3

`python -m vfl.train.launch RECIPE` does the same and takes the method from the recipe.
"""

import sys

from vfl.launching.ranks import leave
from vfl.train.launch import main

if __name__ == "__main__":
    code = main([*sys.argv[1:], "method=sft"] if sys.argv[1:] else [])
    leave()
    sys.exit(code)
