"""The benchmark kit: ``python -m polyplane_bench``, or ``make bench`` from the root of the repository.

`cluster` makes a cluster of any size, always the same for the same seed. Each section (`core`, `events`, `packets`, `churn`)
measures and returns figures (`figures`); `page` and `charts` make from them what people look at.
"""
