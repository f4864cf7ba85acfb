"""The edge to Optuna: study and journal, the ask/tell controller, its worker processes, budgets and resume."""
