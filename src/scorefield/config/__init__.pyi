from .build import build_field as build_field
from .build import build_objective as build_objective
from .build import build_sampler as build_sampler
from .build import build_source as build_source
from .config import Config as Config
from .resolve import load as load
