"""Settings as plain data: YAML, names, descriptions of objects, and what a checkpoint may name."""
