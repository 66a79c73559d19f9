"""The table of model families."""

from pages_from_code.sources import cell

from vfl.models.families import FAMILIES, REFUSED, REFUSED_LAYERS


def page() -> str:
    """The whole page."""
    rows = ["| family | `model_type` | reads | tested | note |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        types = ", ".join(f"`{name}`" for name in family.model_types)
        rows.append(f"| {family.name} | {types} | {family.modality} | {family.tested} | {cell(family.note)} |")
    refused = "\n".join(f"- `{name}`: {why}" for name, why in REFUSED.items())
    return (
        "# Model families\n\nEvery family here is tested with small random models of the real classes and their "
        "processors: throughout, or, where it says `sweep`, in loading and encoding and with all plans of a sweep "
        "against full passes. Others are tried by discovery and checked at load.\n\n"
        f"{chr(10).join(rows)}\n\nRefused, with the reason:\n\n{refused}\n- {REFUSED_LAYERS}\n"
    )
