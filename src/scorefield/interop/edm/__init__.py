"""Models of EDM (Karras et al., 2022): its networks, preconditioners and conventions."""

from scorefield.interop.edm.load import PRECONDITIONERS as PRECONDITIONERS
from scorefield.interop.edm.load import RECIPE as RECIPE
from scorefield.interop.edm.load import field_of as field_of
from scorefield.interop.edm.load import load as load
