"""Generate crystals with a trained Druse model."""
