"""Inference with vision tokens absent from some layers. Start with skip.py (which layers), then running.py."""
