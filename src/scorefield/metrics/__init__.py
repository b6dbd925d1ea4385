"""Distances between samples and a reference, and their noise floors.

The reference of a distance is another set or an exact distribution; ``n`` of its estimate is the
number of samples, of two sets that of the smaller one. Sets have the shape ``(n, *event)``, points
on a torus wrapped or not; ``t`` is the time of the samples in the process of the distribution,
clean by default; ``confidence`` the coverage of an interval. Sets that do not fit or are too small,
an argument out of its range and a value that is not finite are a ``ValueError``.
"""
