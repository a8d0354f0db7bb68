"""What a fit would see of a corpus: counts, durations, faults, folds, pictures."""
