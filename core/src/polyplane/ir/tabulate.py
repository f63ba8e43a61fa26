"""`Tabulator`: classify, then decide. Turns a program into two tables for dataplanes that have maps.

Every peer match asks only "which address sets is this address in?". So addresses fall into disjoint *classes*: an address's
class is the collection of sets it is in, found by longest prefix. And an endpoint's whole stack of tiers, policies and rules,
asked about one class, shrinks to a *table*: protocol × destination port range → decision. Tiers, pass, deny, negation and
isolation vanish; a packet costs two lookups whatever the number of policies, and a changed member is one element.

What a table's dimensions cannot say (source ports, ICMP types, log) stays as a list of *conditions* inside the decision.
"""

from __future__ import annotations
