"""What is installed here, what it can run, and what is missing."""
