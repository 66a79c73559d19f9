"""Choosing data: score once, then cut to a budget as often as wanted. Start with score/run.py, choose/filtering.py."""
