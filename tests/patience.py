"""How long a test waits for another process."""

PATIENCE_S = 600.0
"""A machine whose host gives its time to others may take ten times as long as one at rest."""
