"""`vfl serve`: pages over a folder of runs, which is read alone, and answers layer by layer."""
