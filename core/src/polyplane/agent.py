"""`Agent`: the thread, the queue and the signals around `polyplane.reconcile.loop.Loop`, and the one-shot helpers of the tools.

Sources put events on a queue from threads of their own; everything else happens in the thread that calls `Agent.run`.
"""

from __future__ import annotations

import gc
import math
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum, auto
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

from polyplane import logs
from polyplane.addresses import local_addresses
from polyplane.cluster.model import Change, SourceEvent
from polyplane.cluster.sources import manifests
from polyplane.cluster.store import Store
from polyplane.compile.incremental import Compiler
from polyplane.compile.places import Places
from polyplane.config import LIVE, Config, LogLevel, UnknownPods
from polyplane.errors import ConfigError, PolyplaneError
from polyplane.ir.cidr import Cidr
from polyplane.ir.features import ALL_FEATURES, Capabilities
from polyplane.ir.program import Options, Program
from polyplane.locate import make_locator
from polyplane.plugins import Dataplane, dialects, load_backend, load_observers, load_source
from polyplane.reconcile.loop import Loop, Timing
from polyplane.serve import Server

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("polyplane.agent")

#: Items taken from the queue between two steps of the loop, at most.
MAX_TAKEN: Final = 1000
#: Seconds between looks at the queue while a batch of events gathers: less than it takes to gather.
NAP: Final = 0.02
#: Seconds to wait for the kernel's routes before anything else.
LOCATE_PATIENCE: Final = 5.0
#: The observer that ``/metrics`` shows.
METRICS: Final = "metrics"
#: Seconds between signs of life, and without one before the agent counts as stuck: longer than the slowest apply.
BEAT: Final = 5.0
STUCK: Final = 120.0


class _Control(Enum):
    """What signals put on the queue, between the events."""

    STOP = auto()
    RELOAD = auto()


class Agent:
    """Enforces on this node what a source says, until it is stopped; what is in force then stays in force."""

    def __init__(self, config: Config, *, reload: Callable[[], Config] | None = None, wrappers: Iterable[object] = ()) -> None:
        """Load and check all plugins.

        :param reload: reads the configuration again when SIGHUP asks for it
        :param wrappers: plugins around the backend's hooks, see `Dataplane`
        :raises PolyplaneError: whatever keeps the agent from starting, with the remedy
        """
        self.config = config
        self._reread: Final = reload
        # SimpleQueue, because its put may be interrupted by a signal handler that puts, too.
        self._queue: queue.SimpleQueue[tuple[SourceEvent, float] | Places | LogLevel | _Control] = queue.SimpleQueue()
        self._stopping = False
        name = config.backend
        self._dataplane: Final = load_backend(name, config.backend_options.get(name, {}), wrappers=wrappers)
        self._source: Final = load_source(config.source, config.source_options.get(config.source, {}))
        self._dialects: Final = dialects()
        self.store: Final = Store(self._dialects)
        detect = self._detect if config.detect_node_addresses else None
        capabilities = self._dataplane.require_available()
        compiler = Compiler(
            node=config.node or socket.gethostname(),
            capabilities=capabilities,
            options=config.options,
            node_addresses=detect() if detect is not None else config.own_addresses,
            deny_strangers=config.unknown_pods is UnknownPods.DENY,
            pod_prefixes=config.own_pod_prefixes,
        )
        self.loop: Final = Loop(
            store=self.store,
            compiler=compiler,
            dataplane=self._dataplane,
            observers=load_observers(_observers(config), config.observer_options),
            timing=timing(config),
            detect_addresses=detect,
        )
        self.node: Final = compiler.node
        self._server: Final = Server(config.listen, self) if config.listen else None
        self._locator: Final = make_locator(config, capabilities.vantage, self._located)
        self._beat = time.monotonic()
        self._was_in_force = False

    @property
    def dataplane(self) -> Dataplane:
        """The backend that enforces."""
        return self._dataplane

    def stop(self) -> None:
        """Let `run` return soon. May be called from any thread and from signal handlers."""
        self._stopping = True
        self._queue.put(_Control.STOP)

    def reload(self) -> None:
        """Read the configuration again soon. May be called from any thread and from signal handlers."""
        self._queue.put(_Control.RELOAD)

    def run(self, *, once: bool = False) -> None:
        """Enforce until `stop`, SIGTERM or SIGINT; with ``once`` only until everything is in force.

        :raises PolyplaneError: with ``once``, when it could not be brought into force
        """
        with self._signals(), self._server or nullcontext(), self._locator or nullcontext(), self._source:
            _log.info("starting", backend=self.config.backend, node=self.node, source=self.config.source)
            if self._locator is not None and (missing := self._locator.wait(LOCATE_PATIENCE)):
                # It matters to the first apply, which would else change what an earlier run left, and change it back.
                _log.warning("where pods are is not known yet, beginning without it", ways=missing)
            self._source.start(self._receive, self._dialects)
            while not self._stopping:
                self._beat = time.monotonic()
                wake_at = self.loop.step(self._beat)
                if not self._was_in_force:
                    keep_what_there_is()
                    self._was_in_force = self.loop.in_force
                if once and self._done():
                    break
                self._wait(wake_at)
        _log.info("stopped, the rules stay in force")

    def alive(self) -> str | None:
        """Say why the agent should be restarted; None if it should not. May be called from any thread."""
        silent = time.monotonic() - self._beat
        return f"the loop has been busy or stuck for {silent:.0f} s" if silent > STUCK else None

    def ready(self) -> str | None:
        """Say why this node's policies are not in force; None once they are. May be called from any thread."""
        if not self.store.in_sync:
            return f"the source {self.config.source} has not delivered everything yet"
        if not self._was_in_force:
            return "nothing has been applied yet"
        return f"changes cannot be applied: {self.loop.last_error}" if self.loop.hopeless else None

    def log_level(self) -> LogLevel:
        """Return the level that is in force."""
        return self.config.log_level

    def set_log_level(self, level: LogLevel) -> None:
        """Change the log level soon, until the configuration is read again. May be called from any thread."""
        self._queue.put(level)

    def _done(self) -> bool:
        if self.loop.last_error is not None and self.loop.hopeless:
            raise self.loop.last_error
        return self.loop.in_force

    def _wait(self, until: float | None) -> None:
        """Take in what the queue has, and wait for it if it has nothing.

        Bounded, or a source that never pauses would keep the loop from its work.
        """
        if self._server is not None:
            until = min(until or math.inf, time.monotonic() + BEAT)
        if until is not None and self.loop.gathering:
            # Nothing is due yet. To wake for each event of many would cost more than to follow it.
            time.sleep(max(0.0, min(NAP, until - time.monotonic())))
        try:
            self._take(self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic())))
            for _ in range(MAX_TAKEN):
                if self._stopping:
                    break
                self._take(self._queue.get_nowait())
        except queue.Empty:
            return

    def _receive(self, event: SourceEvent) -> None:
        """Queue an event with the time of its arrival; called from the source's threads."""
        self._queue.put((event, time.monotonic()))

    def _located(self, places: Places) -> None:
        """Queue where pods are; called from the locator's threads."""
        self._queue.put(places)

    def _take(self, item: tuple[SourceEvent, float] | Places | LogLevel | _Control) -> None:
        match item:
            case LogLevel():
                self.config = self.config.model_copy(update={"log_level": item})
                logs.configure(item, self.config.log_format)
                _log.warning("log level changed", level=str(item))
            case Places():
                self.loop.locate(item)
            case _Control.STOP:
                pass
            case _Control.RELOAD:
                self._reload()
            case (event, at):
                self.loop.offer(event, at)

    def _reload(self) -> None:
        if self._reread is None:
            _log.warning("there is no configuration to read again")
            return
        try:
            new = self._reread()
        except PolyplaneError as error:
            _log.error("configuration is broken, the old one stays", error=str(error))
            return
        changed = {name for name in Config.model_fields if getattr(new, name) != getattr(self.config, name)}
        if waiting := sorted(changed - LIVE):
            _log.warning("these settings take effect at the next start", settings=waiting)
        self.config = self.config.model_copy(update={name: getattr(new, name) for name in changed & LIVE})
        if "log_level" in changed:
            logs.configure(self.config.log_level, self.config.log_format)
        self.loop.configure(timing=timing(self.config), options=self.config.options)
        _log.info("configuration reloaded", changed=sorted(changed & LIVE))

    def _detect(self) -> frozenset[Cidr]:
        return local_addresses() | self.config.own_addresses

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Listen to signals while running, if this is the thread that receives them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop()

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def keep_what_there_is() -> None:
    """Take what exists now out of the garbage collector's sight: the cluster's objects, which are there to stay and hold no cycles.

    Otherwise it walks over all of them again and again: with 100,000 pods a third of a start's time, and then 0.3 s at a stretch.
    What is dropped later is freed all the same, by its reference count.
    """
    gc.collect(1)
    gc.freeze()


def _observers(config: Config) -> tuple[str, ...]:
    """Return the observers to load: whoever is asked for metrics must have counted."""
    return config.observers if not config.listen or METRICS in config.observers else (*config.observers, METRICS)


def timing(config: Config) -> Timing:
    """Return the loop's share of the configuration."""
    return Timing(
        coalesce=config.coalesce, coalesce_max=config.coalesce_max, audit_interval=config.audit_interval, retry_max=config.retry_max
    )


# --- one shot ----------------------------------------------------------------------------------------------------------


def read_directory(path: Path) -> Store:
    """Return a store with everything the manifests of a directory say; `Store.problems` has what is wrong with them.

    :raises ConfigError: when there is no such directory
    """
    store = Store(dialects())
    for event in manifests.read_directory(path):
        store.apply(event)
    return store


def compile_store(
    store: Store,
    node: str | None = None,
    *,
    capabilities: Capabilities = ALL_FEATURES,
    options: Options | None = None,
    node_addresses: frozenset[Cidr] = frozenset(),
) -> Program:
    """Return the program of one node; ``node`` None is the node of all pods.

    :raises ConfigError: naming the nodes, when there is not just one
    """
    name = node or only_node(store)
    return compiler_for(store, name, capabilities=capabilities, options=options, node_addresses=node_addresses).program


def compiler_for(
    store: Store,
    node: str,
    *,
    capabilities: Capabilities = ALL_FEATURES,
    options: Options | None = None,
    node_addresses: frozenset[Cidr] = frozenset(),
) -> Compiler:
    """Return a compiler that has taken in everything the store holds."""
    compiler = Compiler(node=node, capabilities=capabilities, options=options, node_addresses=node_addresses)
    tables = (store.namespaces, store.nodes, store.pods, store.policies)
    compiler.update([Change(None, value) for table in tables for value in table.values()])
    return compiler


def only_node(store: Store) -> str:
    """Return the name of the one node that has pods.

    :raises ConfigError: when it is not one
    """
    nodes = sorted({pod.node for pod in store.pods.values() if pod.node})
    if len(nodes) == 1:
        return nodes[0]
    if not nodes:
        raise ConfigError("no pod is assigned to a node; give the pods a spec.nodeName, or name the node with --node")
    raise ConfigError(f"the pods are on {len(nodes)} nodes; choose one with --node: {', '.join(nodes)}")


def compile_directory(
    path: Path,
    node: str | None = None,
    *,
    capabilities: Capabilities = ALL_FEATURES,
    options: Options | None = None,
    node_addresses: frozenset[Cidr] = frozenset(),
) -> tuple[Program, Store]:
    """Return the program of one node for a directory of manifests, and the store it comes from.

    :raises PolyplaneError: no such directory, or ``node`` is None and the pods are not all on one node
    """
    store = read_directory(path)
    return compile_store(store, node, capabilities=capabilities, options=options, node_addresses=node_addresses), store
