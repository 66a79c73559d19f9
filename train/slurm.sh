#!/bin/bash
#SBATCH --job-name=vfl-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#
# sbatch train/slurm.sh train/sft.py RECIPE [key=value ...] [--resume]
#
# One task a node; torchrun starts a process for each GPU of it. Data, images, recipe and `out` are on a disk that all
# nodes see. A job that was cut off goes on with --resume.
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:${PORT:-29500}" \
    "$@"
