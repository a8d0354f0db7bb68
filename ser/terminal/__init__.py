"""What is shown in the terminal, whatever that can show."""
