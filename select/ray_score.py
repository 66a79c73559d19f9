"""Score data on a Ray cluster (extra vfl[ray]).

    python select/ray_score.py --workers 8 --gpus 1 data=llava.json map=map.json out=scores
    python select/ray_score.py --address auto --workers 64 --gpus 1 --config score.yaml

Without --address a cluster is started on this machine for as long as the run takes. Paths must mean the same on every
machine of the cluster. Everything behind the options is as for score.py. On SLURM, start the cluster with
`ray symmetric-run` or by hand, and run this on the head with --address auto.
"""

import argparse
import sys

from vfl.select.score.run import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="actors that each hold the model (2)")
    parser.add_argument("--cpus", type=float, default=1, help="logical CPUs that an actor takes (1)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs that an actor takes (0)")
    parser.add_argument("--address", help="of a running cluster, such as auto")
    options, others = parser.parse_known_args()
    ray = [f"ray.workers={options.workers}", f"ray.cpus={options.cpus}", f"ray.gpus={options.gpus}"]
    if options.address:
        ray.append(f"ray.address={options.address}")
    sys.exit(main([*others, *ray]))
