"""Probe pairs: two images that differ in one thing, one question, and the answer on each.

    from vfl.probes.make import make
    from vfl.probes.pair import read_suite

    pairs = make("probes", ["counting", "ocr"], pairs=100, seed=0)
    pairs = read_suite("probes")

Start with pair.py (the format), make.py (generated suites) and functions/ (one file a function).
"""
