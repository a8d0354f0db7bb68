"""The report: runs and experiments as one HTML page."""
