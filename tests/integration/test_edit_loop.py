"""The agent holds while a shell loop edits, breaks and repairs the files it follows: nothing but the documented behaviour happens.

A barrage of probes runs all the time. What `docs/explanation/fail-closed.md` and `docs/how-to/operate.md` say is what is checked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from polyplane_conformance.probe.model import Probe, Traffic
from polyplane_conformance.sandbox import PodSpec, Port, Sandbox, Topology

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.needs("nft")]

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: friend}}}]
      ports: [{port: 80}]
"""

#: One round of what people and editors do to a directory. None of it may open the server to the stranger or close it to the friend.
EDITS = """\
set -eu
cd "$1"
good=$(cat policy.yaml)
while [ ! -e "$2" ]; do
    echo "# a remark" >> policy.yaml                                        # a change that changes nothing
    echo "$good" > .policy.yaml.swp; rm .policy.yaml.swp                    # an editor's swap file
    echo "$good" > policy.yaml~                                             # and its backup
    echo "$good" > new.tmp; mv new.tmp policy.yaml                          # replaced by renaming
    { sleep 1.2; echo "$good"; } > policy.yaml                              # by a program that takes its time
    printf 'spec: [\\n' >> policy.yaml                                      # no YAML any more
    sleep 0.1
    echo "$good" > policy.yaml                                              # repaired in place
    echo "$good" | sed 's/port: 80/port: 800000/' > policy.yaml             # no valid policy any more
    sleep 0.1
    echo "$good" | sed 's/kind: NetworkPolicy/kind: NetworkPolicies/' > other.yaml   # a kind that nobody knows
    printf '\\377\\376\\000' > binary.yaml                                  # not even text
    mkdir -p nested/deeper; echo "$good" | sed 's/name: server/name: again/' > nested/deeper/copy.yaml   # a second policy that agrees
    sleep 0.1
    rm -r nested other.yaml binary.yaml
    ln -sf /nowhere dangling.yaml; rm dangling.yaml
    echo "$good" > new.tmp; mv new.tmp policy.yaml
    sleep 0.05
done
"""

TOPOLOGY = Topology(
    pods=tuple(
        PodSpec(
            namespace="shop",
            name=name,
            addresses=(f"10.65.1.{number}", f"fd65::1:{number}"),
            labels={"app": name},
            ports=(Port(6, 80), Port(17, 80)),
        )
        for number, name in enumerate(("server", "friend", "stranger"), 1)
    )
)
WEB = [Traffic.parse("tcp/80", family) for family in (4, 6)]
FRIEND = [Probe(source="shop/friend", destination="shop/server", traffic=traffic) for traffic in WEB]
STRANGER = [Probe(source="shop/stranger", destination="shop/server", traffic=traffic) for traffic in WEB]
AS_WRITTEN = dict.fromkeys(FRIEND, True) | dict.fromkeys(STRANGER, False)


class Agent:
    """``polyplane run`` on the node of a sandbox, following a directory."""

    def __init__(self, sandbox: Sandbox, directory: Path, log: Path) -> None:
        self.sandbox, self.directory, self.log = sandbox, directory, log
        self.write("cluster.yaml", yaml.safe_dump_all(sandbox.manifests()))
        self.write("policy.yaml", POLICY)
        flags = ["--source", str(directory), "--node", sandbox.topology.node.name, "--backend", "nftables", "--audit-interval", "1"]
        self.process = sandbox.spawn(sandbox.topology.node.name, [tool("polyplane"), "run", *flags], output=log)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, f"the agent ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.log.read_text()}"
            time.sleep(0.05)

    def passes(self, *probes: Probe) -> bool:
        return all(result.allowed for result in self.sandbox.probe(probes))

    def denies(self, *probes: Probe) -> bool:
        return not any(result.allowed for result in self.sandbox.probe(probes))

    def logged(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.log.read_text().splitlines())


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    directory = tmp_path / "manifests"
    directory.mkdir()
    with Sandbox.build(TOPOLOGY) as sandbox:
        running = Agent(sandbox, directory, tmp_path / "log")
        running.until("the policy is in force", lambda: running.denies(*STRANGER) and running.passes(*FRIEND))
        yield running


def test_holds_under_a_loop_of_edits(agent: Agent, tmp_path: Path) -> None:
    script = tmp_path / "edits.sh"
    script.write_text(EDITS)
    with agent.sandbox.barrage(AS_WRITTEN, rate_per_second=100) as barrage:
        enough = tmp_path / "enough"
        loop = subprocess.Popen(["bash", script, agent.directory, enough])
        time.sleep(8)
        enough.touch()
        assert loop.wait(timeout=60) == 0, "the loop of edits itself broke"
        report = barrage.stop()
    assert report.clean, str(report)
    assert agent.process.poll() is None
    assert agent.logged("policy.yaml")
    shutil.rmtree(agent.directory / "nested", ignore_errors=True)  # wherever in its round the loop was killed
    agent.write("policy.yaml", POLICY.replace("friend", "stranger"))
    agent.until("a valid change takes effect afterwards", lambda: agent.passes(*STRANGER) and agent.denies(*FRIEND))


def test_does_what_the_documentation_says(agent: Agent) -> None:
    sandbox = agent.sandbox

    # An invalid update: the last valid version stays, the field and the file are named.
    agent.write("policy.yaml", POLICY.replace("port: 80", "port: 99999"))
    agent.until("the invalid update is reported", lambda: agent.logged("policy.yaml", "spec.ingress[0].ports[0].port"))
    assert agent.denies(*STRANGER)
    assert agent.passes(*FRIEND)

    # A file that no longer parses keeps what it last gave: the invalid version is not it.
    agent.write("policy.yaml", POLICY + "  - : [")
    time.sleep(0.3)
    assert agent.denies(*STRANGER)
    assert agent.passes(*FRIEND)

    # A new invalid object is refused as a whole and does not disturb the others.
    agent.write("new.yaml", POLICY.replace("name: server", "name: second").replace("friend", "stranger").replace("port: 80", "port: 0"))
    agent.until("the new object is reported", lambda: agent.logged("new.yaml", "shop/second"))
    assert agent.denies(*STRANGER)

    # Repaired, it counts: policies add up.
    agent.write("new.yaml", POLICY.replace("name: server", "name: second").replace("friend", "stranger"))
    agent.until("the repaired object is in force", lambda: agent.passes(*STRANGER))
    (agent.directory / "new.yaml").unlink()
    agent.until("and gone with its file", lambda: agent.denies(*STRANGER))

    # Removing the policy removes the isolation, and only that opens.
    (agent.directory / "policy.yaml").unlink()
    agent.until("the isolation ends with the policy", lambda: agent.passes(*STRANGER, *FRIEND))
    agent.write("policy.yaml", POLICY)
    agent.until("the policy is back", lambda: agent.denies(*STRANGER))

    # A relabelled pod is another peer.
    sandbox.relabel_pod("shop/stranger", {"app": "friend"})
    agent.write("cluster.yaml", yaml.safe_dump_all(sandbox.manifests()))
    agent.until("the new label counts", lambda: agent.passes(*STRANGER))
    sandbox.relabel_pod("shop/stranger", {"app": "stranger"})
    agent.write("cluster.yaml", yaml.safe_dump_all(sandbox.manifests()))
    agent.until("and the old one again", lambda: agent.denies(*STRANGER))

    # Somebody else empties our table: the audit puts it back.
    sandbox.run(sandbox.topology.node.name, ["nft", "flush", "table", "inet", "polyplane"])
    agent.until("drift is repaired", lambda: agent.denies(*STRANGER) and agent.passes(*FRIEND))

    # Stopping opens nothing; teardown removes ours and nothing else.
    node = sandbox.topology.node.name
    sandbox.run(node, ["nft", "add", "table", "inet", "foreign"])
    agent.process.terminate()
    assert agent.process.wait(60) == 0, agent.log.read_text()
    assert agent.denies(*STRANGER)
    sandbox.run(node, [tool("polyplane"), "teardown", "--backend", "nftables", "--yes"])
    assert sandbox.run(node, ["nft", "list", "tables"]).split("\n") == ["table inet foreign", ""]
    assert agent.passes(*STRANGER, *FRIEND)
