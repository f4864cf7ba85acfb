"""Checks of data before anything is trained on it. Each is a function from `Parts` to findings; none changes the data.

Severities: a warning is a suspicion that somebody should look at, an info needs nobody. What a warning means for a run
is said by ``checks:`` in the experiment file (`pipeline.data.checks.policy`).
"""
