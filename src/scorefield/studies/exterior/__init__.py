"""How far networks and closed forms are from gradients, from noise to images."""
