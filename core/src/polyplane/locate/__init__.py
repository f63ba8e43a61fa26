"""Where pods are attached: from the address or the name of a pod to the interface on the node's side.

Each *way* to know follows one table of the node in a thread of its own: the kernel's routes (`kernel`), the results that network
plugins leave behind (`cni`), the database of Open vSwitch (`ovsdb`). `Locator` puts together what they say. What is not certain
is not said: a pod at the wrong interface would have no policy.
"""

from polyplane.locate.locator import Locator, make_locator

__all__ = ["Locator", "make_locator"]
