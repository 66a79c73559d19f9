"""`vfl measure`: metrics of a model on probes or on a user's data, as metrics.json, figures and an interactive page."""

from vfl.callable_package import make_callable

make_callable(__name__)
