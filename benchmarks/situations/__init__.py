"""What users bring: folders, values, checkpoints and budgets that once went wrong, one module a kind."""
