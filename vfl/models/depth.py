"""Layers that a paper names, in a model of another depth."""

PAPER_DEPTH = 32  # of the 7B models (LLaVA-1.5 and others) that the papers count layers in


def in_proportion(layer: int, num_layers: int) -> int:
    """A boundary before a paper's layer `layer` of 32, 0 to 32, at the same share of `num_layers`; halves to even."""
    return round(layer * num_layers / PAPER_DEPTH)
