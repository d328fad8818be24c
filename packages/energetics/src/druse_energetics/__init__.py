"""Potentials, relaxation and convex hulls."""
