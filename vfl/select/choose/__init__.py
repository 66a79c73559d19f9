"""Choosing rows to a budget from stored scores, without a model."""
