"""Who is trained on, who chooses the checkpoint, who is tested; the audit, and what a network has heard."""
