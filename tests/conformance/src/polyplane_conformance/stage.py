"""`Stage`: what behaviours are played on: a rig with the shared cast, short ways to write policies, probes and waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from polyplane.ir.program import Options
from polyplane_conformance.actions import Action, ApplyPolicy
from polyplane_conformance.apiserver import ApiServer, Cluster
from polyplane_conformance.cast import NODE
from polyplane_conformance.delivery import make_cluster
from polyplane_conformance.expectation import Service
from polyplane_conformance.gaps import Damage
from polyplane_conformance.netns import inside
from polyplane_conformance.probe.client import Stream
from polyplane_conformance.probe.model import Outcome, Probe, Traffic
from polyplane_conformance.rig import BARE, Rig
from polyplane_conformance.world import World


def policy(name: str, **spec: Any) -> ApplyPolicy:
    """Return the writing of a policy ``namespace/name`` with this spec."""
    return ApplyPolicy(policy=name, spec=spec)


def pod(name: str) -> dict[str, Any]:
    """Return a selector of the cast's pods of this name, as a policy's ``podSelector``."""
    return {"matchLabels": {"pod": name}}


def only_from(*names: str, ports: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return ingress rules that admit the named pods of the policy's own namespace, perhaps only to some ports."""
    rule: dict[str, Any] = {"from": [{"podSelector": pod(name)} for name in names]}
    return [{**rule, "ports": list(ports)} if ports else rule]


class Stage:
    """A rig and the world that plays on it now."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.sandbox = rig.sandbox
        self.world: World = rig.begin(BARE)

    def begin(self, *actions: Action, options: Options | None = None) -> World:
        """Start again with the bare cast, then act; everything is enforced when it returns."""
        self.world = self.rig.begin(BARE, options=options)
        for action in actions:
            self.act(action)
        return self.world

    def act(self, *actions: Action) -> int:
        """Act, enforce; return the number of native operations."""
        return self.rig.act(self.world, *actions).operations

    # --- looking

    def outcome(self, source: str, destination: str, service: str = "TCP/80", *, family: int = 4, address: str = "") -> Outcome:
        """Return what becomes of one probe."""
        traffic = Traffic.parse(service, family)
        (result,) = self.sandbox.probe([Probe(source=source, destination=destination, traffic=traffic, address=address)])
        return result.outcome

    def expect(
        self, service: str = "TCP/80", *, allowed: Iterable[str] = (), denied: Iterable[str] = (), families: Iterable[int] = (4, 6)
    ) -> None:
        """Probe ``source -> destination`` pairs, all at once; every one must be as said."""
        traffic = [Traffic.parse(str(Service.parse(service)), family) for family in families]
        wanted = {
            Probe(source=source.strip(), destination=target.strip(), traffic=kind): passes
            for pairs, passes in ((allowed, True), (denied, False))
            for source, _, target in (pair.partition("->") for pair in pairs)
            for kind in traffic
        }
        results = self.sandbox.probe(wanted)
        wrong = [
            f"{probe}: {result.outcome} {result.detail}"
            for (probe, passes), result in zip(wanted.items(), results, strict=True)
            if result.outcome is Outcome.BROKEN or result.allowed is not passes
        ]
        assert not wrong, "\n".join(wrong)

    def stream(self, source: str, destination: str, service: str = "TCP/80", *, family: int = 4, pushed: bool = False) -> Stream:
        """Open a lasting conversation."""
        return self.sandbox.stream(Probe(source=source, destination=destination, traffic=Traffic.parse(service, family)), pushed=pushed)

    def run(self, *argv: str, where: str = NODE) -> str:
        """Run a command on the node (or elsewhere); return its output."""
        return self.sandbox.run(where, argv)

    def conntrack_flush(self) -> None:
        """Delete every connection the node knows, in its kernel, in its switch, and in what the backend keeps itself."""
        self.sandbox.forget_connections()
        if self.rig.backend.gaps.forget:
            self.run(*self.rig.backend.gaps.forget)

    def damages(self) -> tuple[Damage, ...]:
        """Return how the backend's state can be harmed from outside; where it states no way, the test is skipped."""
        if not self.rig.backend.gaps.damage:
            pytest.skip(f"{self.rig.backend} states no [[damage]] in its conformance.toml")
        return self.rig.backend.gaps.damage


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 15.0) -> None:
    """Wait until a condition holds.

    :raises AssertionError: when it does not in time
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


class AgentProcess:
    """A real ``polyplane run`` on the node under test, following a directory of manifests, or an API server if the suite does.

    The server listens inside the node's network, where the agent is. ``settings`` are the agent's own, by name.
    """

    def __init__(self, stage: Stage, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._stage = stage
        self._settings = {f"POLYPLANE_{name.upper()}": value for name, value in (settings or {}).items()}
        self.directory = folder / "manifests"
        self.directory.mkdir()
        self._log = folder / "agent.log"
        self._process: subprocess.Popen[str] | None = None
        self._starts = 0
        self._server: ApiServer | None = None
        if stage.rig.source == "kubernetes":
            with inside(stage.sandbox.node_netns):
                self._server = ApiServer(make_cluster()).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)
        if self._server is not None:
            self._server.stop()

    def write(self, edit: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = dict) -> None:
        """Write the world's objects: to the API server, or a file each; what is gone goes there, too.

        :param edit: what to write of an object, None: nothing; the world keeps what it has
        """
        if self._server is not None:
            self._write_to(self._server.cluster, edit)
            return
        wanted = {}
        for key, history in self._stage.world.history.items():
            raw = history[-1].raw
            if raw is None or (edited := edit(raw)) is not None:
                wanted["-".join(filter(None, key)).replace("/", "_") + ".json"] = json.dumps(raw if raw is None else edited)
        for name, text in wanted.items():
            path = self.directory / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                draft = self.directory / f".{name}.new"
                draft.write_text(text, encoding="utf-8")
                draft.replace(path)
        for path in self.directory.glob("*.json"):
            if path.name not in wanted:
                path.unlink()

    def _write_to(self, cluster: Cluster, edit: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> None:
        edited = {key: edit(raw) for key, raw in self._stage.world.objects.items()}
        wanted = {key: raw for key, raw in edited.items() if raw is not None}
        for kind in cluster.kinds:
            for (namespace, name), _ in cluster.objects(kind):
                if (kind.kind, namespace, name) not in wanted:
                    cluster.delete(kind, namespace, name)
        for raw in wanted.values():
            cluster.put(raw)

    def start(self) -> None:
        """Start the agent and wait until it has brought its first program into force."""
        self._starts += 1
        log = self._log.with_suffix(f".{self._starts}.log")
        backend = self._stage.rig.backend
        # the agent's own process is in the node's namespace already
        given = {key: value for key, value in self._stage.sandbox.backend_options().items() if key != "netns"} | backend.options
        options = [part for key, value in given.items() for part in ("--backend-option", f"{key}={value}")]
        argv = [
            sys.executable,
            "-m",
            "polyplane",
            "run",
            "--backend",
            backend.name,
            *options,
            "--node",
            NODE,
            *(
                ("--source", str(self.directory))
                if self._server is None
                else ("--kubeconfig", str(self._server.kubeconfig(self.directory / "kubeconfig")))
            ),
        ]
        self._process = self._stage.sandbox.spawn(
            NODE, [*argv, "--log-format", "json", "--audit-interval", "1"], output=log, env={**os.environ, **self._settings}
        )
        wait_for(lambda: log.exists() and '"applied"' in log.read_text(encoding="utf-8"), f"the agent's first apply, see {log}", seconds=60)

    def stop(self, number: signal.Signals) -> None:
        """End the agent by a signal."""
        assert self._process is not None, "the agent was not started"
        self._process.send_signal(number)
        self._process.wait(15)
