"""The run folder: what a run leaves, which settings decide its result, and who writes it."""
