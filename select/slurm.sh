#!/bin/bash
#SBATCH --job-name=vfl-score
#SBATCH --ntasks=16
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
#
# sbatch select/slurm.sh --config score.yaml [key=value ...]
#
# The tasks need no connection to each other: each takes the next part that nobody works on, from a folder that all
# see, so that another job with the same command may join, and one that is cut off leaves its part to the others.
set -euo pipefail

srun python select/score.py "$@"
