"""`vfl measure`: metrics of a model on probes or on a user's data, as metrics.json, figures and an interactive page."""
