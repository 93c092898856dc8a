"""Plans: samplers as tables, how they are written, and their file."""
