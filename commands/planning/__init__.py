"""What a run will take, worked out from parameters before anything is computed."""
