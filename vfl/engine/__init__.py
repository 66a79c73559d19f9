"""The sweep engine: streams, plans, rows, and the sweep that runs any plans on one prompt."""
