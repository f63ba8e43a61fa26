"""The source plugin ``kubernetes``: cluster objects from an API server, listed once and then watched.

One thread a resource (`reflector`) lists, watches and emits. Configuration, credentials and TLS come from the ``kubernetes``
package (`connection`); what the server sends is read raw and decoded by msgspec into only the fields that policy needs
(`shapes`), because the package's own models cost ten times the CPU and fifty times the memory.
"""

from polyplane.cluster.sources.kubernetes.source import KubernetesSource

__all__ = ["KubernetesSource"]
