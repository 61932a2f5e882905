"""Prefect tasks, one file a stage: a reference in, one library call, a reference out."""
