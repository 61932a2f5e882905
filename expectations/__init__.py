"""The health rules of each stage as Great Expectations suites, one file a stage.

A stage's file offers `frame`, the plain columns to look at, and
`expectations`, the rules over them. `gate.check_stage` runs both.
"""
