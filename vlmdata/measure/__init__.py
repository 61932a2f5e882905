"""Facts about one image or one text, computed once: they depend on bytes and a model, never on a threshold."""
