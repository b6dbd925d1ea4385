"""Networks of other code bases: their files, weights and configurations."""

from scorefield.interop.errors import ForeignCodeError as ForeignCodeError
from scorefield.interop.errors import InteropError as InteropError
