"""Interpretability metrics: plain functions over plans, over attention read through one tap, and over hidden states.

    from vfl.metrics import drop

    result = drop(vlm, pairs)

The list of metrics is below, in the order of a report: a new one is a file with its function and `SPEC`
(vfl/metrics/spec.py), and a line here. The functions are imported at once, whichever was asked for: a name such as
`drop` would otherwise be the module `vfl.metrics.drop` or the function, depending on what was imported before.
"""

# isort: off
from vfl.metrics.mask import mask as mask
from vfl.metrics.late_entry import late_entry as late_entry
from vfl.metrics.cosine import cosine as cosine
from vfl.metrics.similarity import similarity as similarity
from vfl.metrics.persistence import persistence as persistence
from vfl.metrics.injection import injection as injection
from vfl.metrics.token_ablation import token_ablation as token_ablation
from vfl.metrics.lens import lens as lens
from vfl.metrics.knockout import knockout as knockout
from vfl.metrics.var import var as var
from vfl.metrics.functional import functional as functional
from vfl.metrics.informational import informational as informational
from vfl.metrics.proximal import proximal as proximal
from vfl.metrics.recommended import recommended as recommended
from vfl.metrics.drop import drop as drop
from vfl.metrics.swap import swap as swap
from vfl.metrics.head_weight import head_weight as head_weight
from vfl.metrics.concentration import concentration as concentration
from vfl.metrics.head_score import head_score as head_score
from vfl.metrics.head_masking import head_masking as head_masking
from vfl.metrics.visual_prompt import visual_prompt as visual_prompt
