"""The run folder: its files and their writer, and which settings decide a result."""
