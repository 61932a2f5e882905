"""Where one sample comes from and what was decided of it, read back from checkpoints, the journal and versions."""
