"""What runs, and in which order: one flow a file."""
