"""Validity, uniqueness, novelty, stability: facts and metrics about generated crystals."""
