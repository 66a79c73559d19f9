"""The same adapter for other trainers."""
