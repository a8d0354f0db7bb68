"""Sweeps: the search space, the study, its trials and their fits."""
