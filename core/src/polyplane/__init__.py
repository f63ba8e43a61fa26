"""polyplane: any network-policy API, any Linux dataplane.

The data's way through the code is the alphabetical order of the folders::

    source ─ objects ─► cluster ─ changes ─► compile ─ Program ─► reconcile ─ Delta ─► backend ─► kernel

`polyplane.ir` stands between them: the program, its deltas, and `evaluate`, the executable definition of what they mean.
`polyplane.hookspecs` is the contract with every plugin.
"""
