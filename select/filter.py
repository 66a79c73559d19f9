"""Choose rows to a budget from stored scores; needs no model and no GPU.

    python select/filter.py scores --data llava.json --budget 20% --out subset
    python select/filter.py scores --data llava.json --budget 20% --policy random --out subset-random

The same as `vfl select filter`, with all its options. One process does it, within --memory.
"""

import sys

from vfl.commands.main import run

if __name__ == "__main__":
    sys.argv[1:1] = ["select", "filter"]
    run()
