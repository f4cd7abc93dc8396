"""Queries that more than one service needs, or whose SQL differs between databases."""
