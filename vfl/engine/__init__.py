"""The sweep engine: image caches, plans, rows, and the sweep that runs any plans on one prompt."""
