"""Relax and judge crystals from anybody."""
