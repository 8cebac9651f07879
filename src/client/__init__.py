"""The client role: frame sources, pacing, one process per camera, fleets, logs."""
