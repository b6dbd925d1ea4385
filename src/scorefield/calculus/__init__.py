"""Vector calculus on fields: derivatives, asymmetry, circulation.

Throughout, ``fn`` is a field in one of its forms (``field.score``, ``field.denoise``, …): it maps
points ``x`` of shape :math:`(batch, *event)`, times ``t`` of shape :math:`(batch)` and, where they
are given, the ``classes`` of the points to vectors of the shape of the points, each row on its own.
``epsilon`` is a relative precision, ``domain`` where the points are. An argument out of its range
is a ``ValueError``.
"""
