"""Inputs of users: folders, values, checkpoints and budgets that once failed, one module per kind."""
