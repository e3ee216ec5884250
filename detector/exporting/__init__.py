"""Export of detectors to files for other runtimes."""
