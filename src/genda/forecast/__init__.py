"""Forecast models: what carries a state from one analysis to the next."""
