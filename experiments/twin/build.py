"""The unplanted model of the experiments: free training alone, its weights rounded to float16, and its map.

    python experiments/twin/build.py [--work runs/twin]     # about an hour and a half of one core; goes on if stopped
    python experiments/twin/build.py --layers 16 --seed 2 --work runs/deep --out runs/deep     # a deeper one

Half the embedded model's recipe in batches of 24, another seed, and no planting: where its functions lie is where
training put them. What the first wrote stands beside this file (weights, map.json), so that every machine has the same.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "micro" / "pretrain.yaml"
SETTINGS = ("planted=false", "plant_steps=700", "batch=24", "precision=float32", "threads=1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/twin"))
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the rounded weights and the map")
    options = parser.parse_args()
    work, out = options.work, options.out
    trained = work / "trained"
    if not trained.exists():
        run(
            "-m",
            "vfl.testbeds.micro.train",
            RECIPE,
            "--resume",
            "--set",
            *SETTINGS,
            f"seed={options.seed}",
            f"model={{layers: {options.layers}}}",
            f"work={work}",
            f"output={trained}",
        )
    rounded(trained, out / "weights")
    run(
        "-m",
        "vfl",
        "locate",
        out / "weights",
        "--probes",
        "micro",
        "--pairs",
        60,
        "--out",
        work / "map",
        "--overwrite",
    )
    shutil.copy(work / "map" / "map.json", out / "map.json")


def rounded(source: Path, target: Path) -> None:
    """A copy of a model folder with float16 weights: half the size, and read back as float32."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    weights = {name: weight.to(torch.float16) for name, weight in load_file(source / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def run(*arguments: object) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
