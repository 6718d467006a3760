"""Prompts: read OR-Bench's three files, choose among them, put them into folds, and say what there is of each."""
