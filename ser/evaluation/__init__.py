"""What the scores of finished runs are worth: reads run folders and nothing else."""
