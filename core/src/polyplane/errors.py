"""Every error polyplane raises on purpose: one root, few classes, the facts as attributes, the remedy in the message."""

from __future__ import annotations


class PolyplaneError(Exception):
    """Root of all errors that polyplane raises on purpose."""


class ConfigError(PolyplaneError):
    """The configuration cannot be used; the message names the key, where it came from and the remedy."""


class InvalidObject(PolyplaneError):
    """One cluster object breaks its API's rules, as an API server would have told its author.

    ``field`` is the path inside the object (``spec.ingress[0].ports[1].endPort``), ``problem`` what is wrong and what to write instead.
    """

    def __init__(self, *, kind: str, namespace: str, name: str, field: str, problem: str) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.field = field
        self.problem = problem
        where = f"{namespace}/{name}" if namespace else name
        super().__init__(f"{kind} {where}: {field}: {problem}")


class InvalidProgram(PolyplaneError, ValueError):
    """An IR value breaks an invariant of the IR: a bug in whoever built it, never in cluster data."""


class TextSyntaxError(PolyplaneError, ValueError):
    """The canonical text of a program cannot be parsed; ``line`` is 1-based."""

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(f"line {line}: {problem}")


class PluginError(PolyplaneError):
    """Root of what can go wrong between polyplane and a plugin."""


class PluginNotFound(PluginError):
    """No installed distribution provides the plugin that the configuration names."""

    def __init__(self, *, group: str, name: str, installed: tuple[str, ...]) -> None:
        self.group = group
        self.name = name
        self.installed = installed
        kind = group.rpartition(".")[2].removesuffix("s")
        have = ", ".join(installed) or "none"
        super().__init__(f"no {kind} named {name!r} is installed (installed: {have}); try: pip install polyplane-{name}")


class PluginLoadError(PluginError):
    """The plugin is installed, but importing or constructing it fails."""

    def __init__(self, *, group: str, name: str, distribution: str, reason: str) -> None:
        self.group = group
        self.name = name
        self.distribution = distribution
        self.reason = reason
        kind = group.rpartition(".")[2].removesuffix("s")
        super().__init__(f"{kind} {name!r} (from {distribution}) is installed but does not load: {reason}")


class PluginConflict(PluginError):
    """Two installed distributions claim the same plugin name."""

    def __init__(self, *, group: str, name: str, distributions: tuple[str, ...]) -> None:
        self.group = group
        self.name = name
        self.distributions = distributions
        kind = group.rpartition(".")[2].removesuffix("s")
        super().__init__(f"{kind} {name!r} is claimed by {' and '.join(distributions)}; uninstall all but one of them")


class PluginContractError(PluginError):
    """A plugin loads but does not keep the hook contract (misspelt hook, wrong arguments, missing implementation)."""

    def __init__(self, *, name: str, violation: str) -> None:
        self.name = name
        self.violation = violation
        super().__init__(f"plugin {name!r} breaks the hook contract: {violation}")


class BackendUnavailable(PolyplaneError):
    """This machine lacks something the backend needs; the message names it and what to install or enable."""


class ApplyError(PolyplaneError):
    """A backend could not bring a delta into the kernel; what was there before still enforces.

    ``retryable`` tells whether the same delta may succeed later (a busy lock) or only a changed one can (a refused rule).
    """

    def __init__(self, message: str, *, backend: str, retryable: bool) -> None:
        self.backend = backend
        self.retryable = retryable
        super().__init__(f"{backend}: {message}")
