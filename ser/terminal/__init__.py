"""Output to terminals of any kind."""
