"""Benchmarks of Druse, one question a file."""
