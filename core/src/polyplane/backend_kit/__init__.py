"""What several backends share: part of the public plugin API, for other people's backends too.

It depends on `polyplane.ir` and `polyplane.errors` alone and knows no backend.
"""
