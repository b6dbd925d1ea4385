"""Backbones: networks that a field wraps, called as ``backbone(x, label)``."""

from scorefield.networks.classifier import Classifier as Classifier
from scorefield.networks.embedding import LevelEmbedding as LevelEmbedding
from scorefield.networks.embedding import SinusoidalEmbedding as SinusoidalEmbedding
from scorefield.networks.features import COORDINATES as COORDINATES
from scorefield.networks.features import PIXELS as PIXELS
from scorefield.networks.features import Features as Features
from scorefield.networks.initial import initialize as initialize
from scorefield.networks.minimal import MinimalUNet as MinimalUNet
from scorefield.networks.mlp import MLP as MLP
from scorefield.networks.unet import UNet as UNet

__all__ = [
    "MLP",
    "UNet",
    "MinimalUNet",
    "Classifier",
    "LevelEmbedding",
    "SinusoidalEmbedding",
    "initialize",
    "Features",
    "COORDINATES",
    "PIXELS",
]
