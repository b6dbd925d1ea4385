"""Backbones: networks that a field wraps, called as ``backbone(x, label)``."""

from scorefield.networks.atoms import EquivariantMLP as EquivariantMLP
from scorefield.networks.atoms import PeriodicFeatures as PeriodicFeatures
from scorefield.networks.atoms import SymmetrizedMLP as SymmetrizedMLP
from scorefield.networks.classifier import Classifier as Classifier
from scorefield.networks.classifier import NoiseClassifier as NoiseClassifier
from scorefield.networks.embedding import LevelEmbedding as LevelEmbedding
from scorefield.networks.embedding import SinusoidalEmbedding as SinusoidalEmbedding
from scorefield.networks.features import COORDINATES as COORDINATES
from scorefield.networks.features import PIXELS as PIXELS
from scorefield.networks.features import Features as Features
from scorefield.networks.initial import initialize as initialize
from scorefield.networks.minimal import MinimalResNet as MinimalResNet
from scorefield.networks.minimal import MinimalUNet as MinimalUNet
from scorefield.networks.mlp import MLP as MLP
from scorefield.networks.ncsn import NCSN as NCSN
from scorefield.networks.ncsn import NCSNv2 as NCSNv2
from scorefield.networks.ncsnpp import DDPM as DDPM
from scorefield.networks.ncsnpp import NCSNpp as NCSNpp
from scorefield.networks.unet import UNet as UNet
