"""Backbones: networks that a field wraps, called as ``backbone(x, label)``."""

from scorefield.networks.embedding import LevelEmbedding as LevelEmbedding
from scorefield.networks.embedding import SinusoidalEmbedding as SinusoidalEmbedding
from scorefield.networks.initial import initialize as initialize
from scorefield.networks.mlp import MLP as MLP
from scorefield.networks.unet import UNet as UNet

__all__ = ["MLP", "UNet", "LevelEmbedding", "SinusoidalEmbedding", "initialize"]
