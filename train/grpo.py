"""Training on sampled answers (GRPO) with LoRA in the layers of chosen functions; rows end with the right answer.

    python train/grpo.py RECIPE data.train=ROWS.jsonl data.match=number
    python train/grpo.py RECIPE --check                 # what is known before the first step, and no further
    python train/grpo.py RECIPE --resume                # on after an interruption

One machine with eight GPUs, by any launcher:

    torchrun --nproc-per-node 8 train/grpo.py RECIPE
    accelerate launch --num_processes 8 train/grpo.py RECIPE
    deepspeed --num_gpus 8 train/grpo.py RECIPE deepspeed=zero2

Several machines: sbatch train/slurm.sh train/grpo.py RECIPE deepspeed=zero2

`python -m vfl.train.launch RECIPE` does the same and takes the method from the recipe.
"""

import sys

from vfl.launching.ranks import leave
from vfl.train.launch import main

if __name__ == "__main__":
    code = main([*sys.argv[1:], "method=grpo"] if sys.argv[1:] else [])
    leave()
    sys.exit(code)
