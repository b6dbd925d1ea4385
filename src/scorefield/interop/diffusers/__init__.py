"""Models of diffusers: a network in the convention of a scheduler, and the folders of pipelines."""

from scorefield.interop.diffusers.convention import field_of as field_of
from scorefield.interop.diffusers.folders import load as load
