"""Model packages: a trained model with everything that raw rows need to become predictions, in files that hold no code."""
