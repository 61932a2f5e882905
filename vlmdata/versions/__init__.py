"""Published versions of a dataset: what each holds, what moved between two of them, and any of them exported again."""
