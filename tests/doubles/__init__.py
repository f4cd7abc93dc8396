"""Doubles of what Ringbridge stands beside, scripted by the tests."""
