"""What the verbs of the command line do; `flows.cli` parses and prints."""
