"""The command line: turns words into configuration keys, shows progress and results. Computes nothing."""
