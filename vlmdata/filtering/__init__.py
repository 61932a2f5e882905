"""`01_filtered`: rules and de-duplication, decided over measured columns."""
