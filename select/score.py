"""Score data once, on any number of GPUs, to select from it many times.

    python select/score.py data=llava.json images=train2017 model=Qwen/Qwen2.5-VL-7B-Instruct map=map.json out=scores
    python select/score.py --config score.yaml batch_size=8

One machine with eight GPUs, by any launcher:

    torchrun --nproc-per-node 8 select/score.py --config score.yaml
    accelerate launch --num_processes 8 select/score.py --config score.yaml
    deepspeed --num_gpus 8 select/score.py --config score.yaml

Several machines: sbatch select/slurm.sh --config score.yaml

Every process takes the next part that nobody works on. The same command goes on after an interruption.
`python -m vfl.select.score.run` does the same.
"""

import sys

from vfl.select.score.run import main

if __name__ == "__main__":
    sys.exit(main())
