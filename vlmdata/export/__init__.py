"""`04_final`: files that a trainer reads."""
