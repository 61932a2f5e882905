"""Image-text models: where their weights are, what they know, and which scores mean a match."""
