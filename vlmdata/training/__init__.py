"""From an export to a model: CLIP-style training and fine-tuning, by rules that are visible in config and log."""
