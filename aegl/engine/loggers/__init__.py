"""Systems that a training run can be recorded in besides ``results.csv``: one file each."""
