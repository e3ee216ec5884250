"""The command line: verbs, jobs and sweeps."""
