"""Selection from many score rows: time and peak memory of each policy, from generated scores.

    python bench/selection.py                       # 10 million rows, 20 %: some minutes
    python bench/selection.py --rows 1000000 --policies quota,top --json results.json

Scores are generated first, in shards as scoring writes them. Then each policy runs in a process of its own: classes
from the raw scores, order, budget, and the subset's files that don't need the data (ids.txt and the score table).
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vfl.errors import InputError
from vfl.io.atomic import replacing

FUNCTIONS = ("recognition", "counting", "grounding", "ocr")
SHARD = 1_000_000
POLICIES = ("quota", "top", "temperature", "random", "stratified-random", "length", "perplexity")


def main() -> None:
    """Generate, measure, print, write."""
    arguments = parse()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        subprocess.run(child(["--measure", "generate"], Path(folder)), check=True, stdout=subprocess.DEVNULL)
        made = time.perf_counter() - started
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        print(f"{arguments.rows:,} rows in {size / 2**30:.2f} GiB of parquet, generated in {made:.0f} s")
        print(f"duckdb's memory limit {arguments.memory}, {arguments.threads} threads, budget {arguments.budget}\n")
        print(f"{'policy':<20}{'seconds':>10}{'peak RSS':>12}{'rows':>14}")
        results = []
        for policy in arguments.policies:
            done = subprocess.run(
                child(["--measure", policy], Path(folder)), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{policy} failed:\n{done.stderr}")
            run = json.loads(done.stdout.splitlines()[-1])
            results.append(run)
            print(
                f"{policy:<20}{run['seconds']:>10.1f}{run['peak_bytes'] / 2**20:>8.0f} MiB{run['rows']:>14,}",
                flush=True,
            )
    measured = {
        "rows": arguments.rows,
        "bytes": size,
        "budget": arguments.budget,
        "memory": arguments.memory,
        "threads": arguments.threads,
        "versions": {"python": platform.python_version(), "duckdb": version("duckdb")},
        "results": results,
    }
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(measured, indent=2) + "\n")


def child(arguments: list[str], folder: Path) -> list[str]:
    """The same command in a process of its own."""
    return [sys.executable, __file__, *sys.argv[1:], *arguments, "--folder", str(folder)]


def measure(what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of this process for one policy."""
    if what == "generate":
        generate(arguments.folder / "scores", arguments.rows)
        return {}
    from vfl.select.choose.filtering import ChoiceConfig, choose
    from vfl.select.shards.score_folder import database, open_scores
    from vfl.select.subset.write import write_ids, write_table

    started = time.perf_counter()
    names = ("budget", "duplicates", "memory", "threads")
    config = ChoiceConfig.model_validate({"policy": what, **{name: getattr(arguments, name) for name in names}})
    out = arguments.folder / what
    out.mkdir(exist_ok=True)
    with database(config.memory, config.threads, temporary=arguments.folder) as connection:
        choice = choose(connection, open_scores(arguments.folder / "scores"), config)
        write_table(connection, out / "scores.parquet")
        write_ids(connection, out / "ids.txt")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "policy": what,
        "seconds": seconds,
        "peak_bytes": peak,
        "rows": choice.rows,
        "duplicates": choice.duplicates,
    }


def generate(folder: Path, rows: int) -> None:
    """Scores with four functions: 60/20/15/5 % of rows need one, a tenth is text or wrong, 1 % repeated."""
    import duckdb

    (folder / "parts").mkdir(parents=True, exist_ok=True)
    with duckdb.connect(config={"memory_limit": "1GB", "threads": "2"}) as connection:
        for shard, first in enumerate(range(0, rows, SHARD)):
            connection.execute(
                f"COPY ({rows_sql(first, min(first + SHARD, rows))})"
                f" TO '{folder / 'parts' / f'part-{shard:05}.parquet'}' (FORMAT parquet)"
            )
    manifest = {"functions": {name: [] for name in FUNCTIONS}, "model": {"parameters": 7_000_000_000}, "settings": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rows_sql(first: int, last: int) -> str:
    """Generated rows as SQL; everything follows from the row's number."""

    def part(salt: int) -> str:
        return f"(hash(i * 64 + {salt}) / 18446744073709551616.0)"

    bounds = (0.0, 0.6, 0.8, 0.95, 1.0)
    drops = []
    for n, name in enumerate(FUNCTIONS):
        mine = f"(needs >= {bounds[n]} AND needs < {bounds[n + 1]})"
        lost = f"CASE WHEN {mine} AND solved THEN ceil(8 * {part(10 + n)}) / 8 ELSE 0 END"
        drop = f"CASE WHEN kind = 'vision' THEN {lost} END"
        log = f"CASE WHEN kind = 'vision' THEN {part(20 + n)} * CASE WHEN {mine} THEN 4 ELSE 0.1 END END"
        drops += [f"({drop})::FLOAT AS drop_{name}", f"({drop}) = 0 AS exact_{name}"]
        drops += [f"({log})::FLOAT AS logprob_drop_{name}", f"({log} / 5)::FLOAT AS prob_drop_{name}"]
    return f"""
        WITH base AS (
            SELECT i, CASE WHEN {part(1)} < 0.1 THEN 'text' ELSE 'vision' END AS kind, {part(2)} AS needs,
                {part(3)} >= 0.1 AS solved
            FROM range({first}, {last}) AS numbers(i))
        SELECT md5('row ' || i) || '#0' AS uid, i::BIGINT AS position, 'source ' || (i % 10) AS source, kind,
            (20 + floor(200 * {part(4)}))::INT AS text_tokens,
            CASE kind WHEN 'text' THEN 0 ELSE 576 END::INT AS image_tokens,
            (1 + floor(100 * {part(5)} * {part(6)}))::INT AS answer_tokens, 1::INT AS turns,
            (kind = 'vision')::INT AS images, (3 * {part(7)})::FLOAT AS loss, exp(3 * {part(7)})::FLOAT AS perplexity,
            exp(-3 * {part(7)})::FLOAT AS answer_prob, {part(8)}::FLOAT AS el2n,
            CASE WHEN solved THEN 1 ELSE 0.5 END::FLOAT AS accuracy, solved AS exact,
            CASE WHEN kind = 'vision' THEN 0.2 END::FLOAT AS no_image_accuracy,
            CASE WHEN kind = 'vision' THEN {part(9)} < 0.1 END AS no_image_exact,
            CASE WHEN kind = 'vision' THEN 3 * {part(9)} END::FLOAT AS no_image_logprob_drop,
            CASE WHEN kind = 'vision' THEN {part(9)} / 2 END::FLOAT AS no_image_prob_drop, {", ".join(drops)},
            md5('text ' || (i - (i % 100 = 0)::INT)) AS text_hash,
            CASE WHEN kind = 'vision' THEN substr(md5('image ' || (i - (i % 100 = 0)::INT)), 1, 16) || ':'
                || md5('exact ' || (i - (i % 100 = 0)::INT)) ELSE '' END AS image_hash, 0::TINYINT AS full_passes
        FROM base"""


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--budget", default="20%")
    parser.add_argument("--policies", type=lambda text: text.split(","), default=list(POLICIES))
    parser.add_argument("--duplicates", choices=["keep", "exact", "near"], default="keep")
    parser.add_argument("--memory", default="1GB", help="duckdb's memory limit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to put the scores; default: the system's place"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        os.makedirs(arguments.folder, exist_ok=True)
    return arguments


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"selection.py: {error}", file=sys.stderr)
        sys.exit(2)
