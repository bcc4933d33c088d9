"""What several stages are made from."""
