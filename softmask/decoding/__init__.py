"""Samplers: they turn a trained model into token sequences and know nothing of how it was trained."""
