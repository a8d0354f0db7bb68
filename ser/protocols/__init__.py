"""Who is trained on, who selects the checkpoint, who is tested; the audit, and what a network has seen."""
