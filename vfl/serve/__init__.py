"""`vfl serve`: pages over a folder of runs, and answers layer by layer. It reads the folder, and runs nothing from it."""
