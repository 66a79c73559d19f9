"""Interpretability metrics: plain functions over plans, over attention read through one tap, and over hidden states."""
