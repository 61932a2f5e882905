"""Prefect tasks, one file a stage: a reference in, one library call, a reference out."""

OWN_SERVER = "VLMDATA_OWN_PREFECT_SERVER"
"""An environment variable: set where the Prefect server was started for this one build."""
