"""The package's only backward pass: cohorts of trials, optimisation, early stopping, checkpoints, workers."""
