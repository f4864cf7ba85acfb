"""Scheduled searches: when they start, where Prefect keeps them, and the process that runs them.

A schedule is an ordinary Prefect deployment in a process work pool, and nothing else remembers it: what is changed in
Prefect's UI is what runs.
"""
