"""Probes: real packets between network namespaces, thousands at a time, with the certainty that silence means denial.

`model` says what is asked and answered, `client` talks to the prober process, which is all the other modules: `agent` (its
main loop and requests), `loop`, `place` (a namespace), `servers`, `attempts` (a probe's packets), `numbers` (their source
ports), `rounds` (from packets to verdicts), `flows` (what lasts), `wire`, `sctp` and `icmp` (formats).
"""
