"""Observations: the table every point source shares, its readers and checks, simulated networks and operators."""
