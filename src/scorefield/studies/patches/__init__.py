"""How well a network is described by patches of its training images."""
