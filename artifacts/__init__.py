"""What stages write: JSON in one form, manifests, hashes. It decides bytes, so it is a dependency of every stage."""
