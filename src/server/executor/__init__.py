"""The process of one device: receives frames, decides, infers, answers."""
