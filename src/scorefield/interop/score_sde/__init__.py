"""The score_sde code (Song et al., 2021): its networks, configurations and checkpoints."""
