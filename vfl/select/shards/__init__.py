"""Scores on disk: parts, their table, and who works on which."""
