"""Figures: one module per figure, each reading only logs."""
