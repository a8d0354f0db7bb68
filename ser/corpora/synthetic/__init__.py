"""The embedded corpus: synthetic speech."""
