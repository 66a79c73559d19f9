"""Answers of a model on held-out probes and on a user's own questions: accuracy per group, and paired differences."""
