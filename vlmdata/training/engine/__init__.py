"""What needs torch: imported only where training is about to run."""
