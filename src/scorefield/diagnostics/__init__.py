"""Diagnostics: measured properties of a field, with error bars.

Each takes the ``field``, the ``data`` that the points come from (a target or clean points), the
``protocol`` with noise levels and points, and the ``classes`` of the points as in
:meth:`.Protocol.points`, and returns a :class:`.Profile`: one estimate per noise level. An argument
out of its range, and a value that is not finite, is a ``ValueError`` that names the diagnostic and
the noise level. ``rule`` is a :func:`~.quadrature`; ``quantity`` the parametrisation of the field.
"""
