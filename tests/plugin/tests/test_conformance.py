"""The conformance suite of polyplane, all of it, on the backend that pyproject.toml names."""

from polyplane_conformance.everything import *
