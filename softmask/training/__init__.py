"""Objectives, collators, EMA, and the Trainer subclass with exact resume."""
