"""The oracle: what the texts of the policy APIs say about one connection.

It reads raw objects, as a cluster would serve them, and shares nothing with polyplane: no selectors, no addresses, no
defaults (an import contract keeps it so). It is slow and literal on purpose. Where the API leaves a question open, it
answers as the semantics table in ``docs/explanation`` does.
"""

from polyplane_conformance.oracle.admission import refusal
from polyplane_conformance.oracle.verdicts import Answer, Connection, Oracle

__all__ = ["Answer", "Connection", "Oracle", "refusal"]
