"""What the README claims, with the command that measures it: ``python -m benchmarks NAME``."""
