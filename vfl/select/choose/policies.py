"""Policies: which rows a budget goes to. Each one is a division into strata and an order inside each stratum.

| policy | strata | first inside a stratum |
|---|---|---|
| `balanced` (default) | functions by clusters | see vfl.select.choose.balance |
| `quota` | classes | highest score |
| `temperature` | classes | drawn with probability proportional to exp(score / temperature), without replacement |
| `target` | none | highest weighted sum of the standardised drops of the target's functions |
| `top` | none | highest score |
| `random` | none | drawn |
| `stratified-random` | sources, or classes with `by: class` | drawn |
| `length`, `perplexity`, `el2n` | none | longest answer, highest perplexity, highest EL2N |
| `no-image-gap` | none | largest loss of log-probability without the image |
| `vig` | none | perplexity rises most without the image; see vfl.select.choose.vig |
| `coincide` | clusters of states | see vfl.select.choose.coincide |
| `ccs` | bins of difficulty | drawn; see vfl.select.choose.ccs |
| `prism` | with and without image | see vfl.select.choose.prism |
| `semdedup` | none | see vfl.select.choose.semdedup |

`quota`, `temperature`, `target` and `top` look at classes: a function's class takes part; `include` lets other classes
take part as well, and those in `fill` (default: none and text) get only what is left when all others are used up. The
rest (default: blind) is left out: a row that is answered without the image teaches nothing about images. The others,
which are there to compare with, look at all rows, except that `by: class` divides like `quota`.

Rows that are wrong before anything is taken away (unsolved) stay in their class, since training can gain from them;
`unsolved: own` makes them a class of their own that takes part, `unsolved: drop` leaves them out, whatever the policy.

Equal rows are ordered by uid. What is drawn depends on the seed and the uid alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vfl.errors import InputError
from vfl.io.fields import Names, split
from vfl.select.choose.allocation import Tier
from vfl.select.choose.vig import GAP
from vfl.select.shards.score_folder import NOT_FUNCTIONS, column, text

Policy = Literal[
    "balanced",
    "quota",
    "target",
    "top",
    "temperature",
    "random",
    "stratified-random",
    "length",
    "perplexity",
    "el2n",
    "vig",
    "coincide",
    "ccs",
    "prism",
    "semdedup",
    "no-image-gap",
]
PLACED: tuple[Policy, ...] = ("balanced", "coincide", "ccs", "prism", "semdedup")
"""Those that look at all rows together; see vfl.select.choose.placing."""
BASELINES: tuple[Policy, ...] = ("random", "stratified-random", "length", "perplexity", "el2n", "no-image-gap")
MEASURES = {
    "length": "answer_tokens",
    "perplexity": "perplexity",
    "el2n": "el2n",
    "no-image-gap": "no_image_logprob_drop",
}
ALL = "all"
NO_SOURCE = "(no source)"


def _weights(value: Any) -> Any:
    """ "ocr,counting" -> {"ocr": 1.0, "counting": 1.0}."""
    if not isinstance(value, str | list | tuple):
        return value
    return dict.fromkeys(split(value), 1.0)


class PolicyConfig(BaseModel):
    """How rows are chosen; see the module's table."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy = "balanced"
    shares: Literal["equal", "proportional"] | dict[str, Annotated[float, Field(ge=0)]] = Field(
        default="equal", description="of each stratum in the budget; numbers need not sum to one"
    )
    target: Annotated[dict[str, float] | None, BeforeValidator(_weights)] = Field(
        default=None, description="functions and their weights, for the policy target"
    )
    temperature: float = Field(default=1.0, gt=0, description="0: the best first; infinite: any")
    by: Literal["source", "class"] = Field(default="source", description="strata of stratified-random")
    end: Literal["high", "low", "middle"] = Field(
        default="high", description="which rows length, perplexity, el2n and no-image-gap take first"
    )
    unsolved: Literal["keep", "own", "drop"] = "keep"
    include: Names = ()
    fill: Names = ("none", "text")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Ranking:
    """SQL over the classed view: which rows may be chosen, their stratum, and what orders them (largest first)."""

    where: str
    stratum: str
    keys: tuple[str, ...]
    classes: bool
    """Whether strata are classes."""


def ranking_of(config: PolicyConfig, functions: tuple[str, ...]) -> Ranking:
    """A policy as SQL.

    Raises:
        InputError: it names a class or function that there is none of, or has no target.
    """
    _check(config, functions)
    if config.policy in PLACED:
        _check_placed(config)
        where = "solved IS DISTINCT FROM false" if config.unsolved == "drop" else "true"
        return Ranking(where, "placed_as", _keys(config), False)
    by_class = config.policy in ("quota", "temperature") or (
        config.policy == "stratified-random" and config.by == "class"
    )
    own = (
        f"CASE WHEN solved = false AND class IN ({_list((*functions, 'none'))}) THEN 'unsolved' ELSE class END"
        if config.unsolved == "own"
        else "class"
    )
    conditions = ["solved IS DISTINCT FROM false"] if config.unsolved == "drop" else []
    if by_class or config.policy in ("target", "top"):
        conditions.append(f"({own}) IN ({_list(eligible(config, functions))})")
    stratum = f"({own})" if by_class else text(ALL)
    if config.policy == "stratified-random" and not by_class:
        stratum = f"coalesce(source, {text(NO_SOURCE)})"
    keys = _keys(config)
    late = tuple(name for name in config.fill if name not in config.include)
    if config.policy in ("target", "top") and late:
        keys = (f"(({own}) NOT IN ({_list(late)}))::INT", *keys)
    return Ranking(" AND ".join(conditions) or "true", stratum, keys, by_class)


def eligible(config: PolicyConfig, functions: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that may be chosen from."""
    own = ("unsolved",) if config.unsolved == "own" else ()
    return tuple(dict.fromkeys((*functions, *own, *config.include, *config.fill)))


def tiers_of(
    config: PolicyConfig,
    functions: tuple[str, ...],
    counts: Mapping[str, int],
    *,
    classes: bool,
    standing_for: Callable[[str], int],
) -> list[Tier]:
    """The strata and their weights in the budget; strata of a later tier get what is left.

    Args:
        counts: of the rows in each stratum, for proportional shares.
        standing_for: how many functions a stratum is of, which has a share for each.
    """
    names = sorted(counts)
    first = [name for name in names if not classes or name not in config.fill or name in config.include]
    rest = [name for name in names if name not in first]
    if isinstance(config.shares, dict):
        if unknown := [
            name for name in config.shares if name not in (eligible(config, functions) if classes else counts)
        ]:
            raise InputError(f"shares names {unknown[0]!r}; rows are chosen from {', '.join(names)}.")
        named = {name: share for name, share in config.shares.items() if share > 0}
        return [Tier(named), Tier({name: 1.0 for name in (*first, *rest) if name not in config.shares})]
    proportional = config.shares == "proportional" or (config.policy == "stratified-random" and not classes)
    weights = {name: float(counts[name] if proportional else standing_for(name)) for name in names}
    return [Tier({name: weights[name] for name in tier}) for tier in (first, rest)]


def uniform(seed: int) -> str:
    """The SQL of a number in (0, 1) that depends on the seed and the row's uid, and on no version of a library."""
    return f"((md5_number_lower({text(f'{seed}:')} || uid) >> 11)::DOUBLE + 0.5) / {float(2**53)!r}::DOUBLE"


def _keys(config: PolicyConfig) -> tuple[str, ...]:
    drawn = uniform(config.seed)
    match config.policy:
        case "balanced" | "coincide" | "ccs" | "prism" | "semdedup":
            return "-turn", drawn
        case "vig":
            return (f"CASE WHEN isfinite({GAP}) THEN {GAP} END",)
        case "quota" | "top":
            # text rows have no score, and stand in an order of their own
            return "score", "score2", f"CASE WHEN score IS NULL THEN {drawn} END"
        case "temperature":
            # Gumbel's trick: the largest of score/T + noise are a draw without replacement by softmax(score/T)
            return (f"coalesce(score, 0.0) / {config.temperature!r}::DOUBLE - ln(-ln({drawn}))",)
        case "target":
            assert config.target is not None
            return (
                " + ".join(f"{weight!r}::DOUBLE * {column('z_' + name)}" for name, weight in config.target.items()),
            )
        case "random" | "stratified-random":
            return (drawn,)
        case name:
            value = MEASURES[name]
            measured = f"CASE WHEN isfinite({value}::DOUBLE) THEN {value}::DOUBLE END"
            if config.end == "middle":
                return (f"-abs({measured} - (SELECT quantile_disc({measured}, 0.5) FROM classed))",)
            return (measured if config.end == "high" else f"-({measured})",)


def _check(config: PolicyConfig, functions: tuple[str, ...]) -> None:
    known = (*functions, *NOT_FUNCTIONS[:3])
    for name in ("include", "fill"):
        if unknown := [one for one in getattr(config, name) if one not in known]:
            raise InputError(f"{name} names {unknown[0]!r}; classes are {', '.join(known)}.")
    if config.policy == "target" and not config.target:
        raise InputError(f"The policy target needs a target: one of {', '.join(functions)}, or weights of several.")
    if unknown := [name for name in config.target or () if name not in functions]:
        raise InputError(f"target names {unknown[0]!r}; the scores have {', '.join(functions)}.")


def _check_placed(config: PolicyConfig) -> None:
    """Settings of the policies by class would change nothing here."""
    of_balanced = {
        "shares": "balance.level and balance.least move its shares",
        "include": "balance.drop says what is left out",
        "unsolved": "balance.least moves the budget to unsolved rows",
    }
    set_here = {"shares": config.shares != "equal", "include": config.include, "unsolved": config.unsolved == "own"}
    for name in (name for name, is_set in set_here.items() if is_set):
        advice = of_balanced[name] if config.policy == "balanced" else "it divides the budget in its own way"
        raise InputError(
            f"{name} is a setting of policies that divide by class, and the policy is {config.policy}: {advice}. Choose"
            " such a policy, as with --policy quota, or leave it out."
        )


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(map(text, names))
