"""From contents of files to events: identities, lists, what stays while a file is broken, double definitions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from polyplane.cluster.model import ObjectKey, PutObject, RemoveObject, SourceEvent, SourceProblem
from polyplane.cluster.sources.inventory import Inventory
from polyplane.cluster.sources.objects import read_contents


def node(name: str, label: str = "") -> str:
    return f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{a: '{label}'}}}}\n"


def policy(name: str, types: str = "Ingress") -> str:
    return f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{policyTypes: [{types}]}}\n"


def key(name: str) -> ObjectKey:
    return ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "shop", name)


class World:
    """An inventory and what a consumer of its events knows."""

    def __init__(self) -> None:
        self.inventory = Inventory()
        self.objects: dict[ObjectKey, PutObject] = {}
        self.problems: dict[str, SourceProblem] = {}

    def put(self, path: str, *documents: str) -> list[SourceEvent]:
        self.inventory.put(path, "---\n".join(documents).encode())
        return self.take()

    def remove(self, path: str) -> list[SourceEvent]:
        self.inventory.remove(path)
        return self.take()

    def take(self) -> list[SourceEvent]:
        events = self.inventory.events()
        self.follow(events)
        return events

    def follow(self, events: Iterable[SourceEvent]) -> None:
        for event in events:
            match event:
                case PutObject():
                    self.objects[event.key] = event
                case RemoveObject():
                    del self.objects[event.key]
                case SourceProblem(problem=None):
                    del self.problems[event.where]
                case SourceProblem():
                    self.problems[event.where] = event

    @property
    def names(self) -> list[str]:
        return sorted(key.name for key in self.objects)

    @property
    def state(self) -> object:
        return self.objects, self.problems


@pytest.fixture
def world() -> World:
    return World()


def test_objects_come_with_identity_and_place(world: World) -> None:
    world.put("web/all.yaml", policy("a"), "# nothing\n", policy("b").replace(", namespace: shop", ""), node("n"))
    assert {str(key): event.where for key, event in world.objects.items()} == {
        "NetworkPolicy shop/a": "web/all.yaml, document 1, line 1",
        "NetworkPolicy default/b": "web/all.yaml, document 3, line 8",
        "Node n": "web/all.yaml, document 4, line 13",
    }


def test_nothing_new_is_no_event(world: World) -> None:
    assert len(world.put("a.yaml", policy("a"))) == 1
    assert world.put("a.yaml", policy("a")) == []
    assert world.put("a.yaml", policy("a") + "\n# only a comment\n") == []
    assert world.take() == []


def test_update_and_removal(world: World) -> None:
    world.put("a.yaml", policy("a"), policy("b"))
    (event,) = world.put("a.yaml", policy("a"), policy("b", "Egress"))
    assert isinstance(event, PutObject)
    assert event.raw["spec"] == {"policyTypes": ["Egress"]}
    assert world.put("a.yaml", policy("a")) == [RemoveObject(key("b"))]
    assert world.remove("a.yaml") == [RemoveObject(key("a"))]
    assert world.remove("a.yaml") == []


def test_an_object_that_moves_to_another_file_is_never_gone(world: World) -> None:
    world.put("a.yaml", policy("a"))
    world.inventory.remove("a.yaml")
    world.inventory.put("b.yaml", policy("a").encode())
    assert [type(event) for event in world.take()] == [PutObject]


@pytest.mark.parametrize(
    "wreck", ["spec: [\n", "- 5\n", policy("c").replace("kind", "knd"), policy("c").replace("name: c", "name: 5"), policy("c") * 2]
)
def test_while_anything_in_a_file_is_broken_nothing_of_it_goes(world: World, wreck: str) -> None:
    world.put("a.yaml", policy("a"), policy("b"))
    world.put("a.yaml", policy("a", "Egress"), wreck)
    assert world.objects[key("a")].raw["spec"] == {"policyTypes": ["Egress"]}, "what can be read takes effect"
    assert world.names == ["a", "b"], "what may be in the broken part stays"
    assert world.problems["a.yaml"].stale
    assert "NetworkPolicy shop/b" in (world.problems["a.yaml"].problem or "")
    (other,) = [problem for where, problem in world.problems.items() if where != "a.yaml"]
    assert other.where.startswith("a.yaml, document 2, line ")
    assert other.stale
    world.put("a.yaml", wreck)
    assert world.names == ["a", "b"], "also while it stays broken and is edited on"
    world.put("a.yaml", policy("b"))
    assert (world.names, world.problems) == (["b"], {}), "the repair counts"


def test_a_new_broken_file_gives_what_can_be_read(world: World) -> None:
    world.put("a.yaml", policy("a"), "x: [\n", policy("b"))
    assert world.names == ["a", "b"]
    assert [(where, problem.stale) for where, problem in world.problems.items()] == [("a.yaml, document 2, line 7", False)]
    world.put("a.yaml", "x: [\n", policy("b"))
    assert world.names == ["a", "b"]
    world.remove("a.yaml")
    assert (world.names, world.problems) == ([], {})


def test_an_unreadable_file_keeps_what_it_gave(world: World) -> None:
    world.put("a.yaml", policy("a"))
    world.inventory.unreadable("a.yaml", "cannot be read: Permission denied; check its permissions")
    world.take()
    assert world.names == ["a"]
    assert "Permission denied" in (world.problems["a.yaml"].problem or "")
    assert world.problems["a.yaml"].stale
    world.put("a.yaml", policy("a"))
    assert (world.names, world.problems) == (["a"], {})


def test_of_two_definitions_the_first_by_path_counts(world: World) -> None:
    world.put("b.yaml", policy("a", "Egress"))
    assert world.objects[key("a")].where.startswith("b.yaml")
    world.put("a.yaml", policy("x"), policy("a"))
    assert world.objects[key("a")].where == "a.yaml, document 2, line 6"
    (problem,) = world.problems.values()
    assert problem.where == "b.yaml, document 1, line 1"
    assert problem.problem == (
        "NetworkPolicy shop/a is defined twice: here and in a.yaml, document 2, line 6, which is the one in force; remove one"
    )
    world.put("a.yaml", policy("x"))
    assert world.objects[key("a")].where.startswith("b.yaml")
    assert not world.problems


def test_what_is_readable_counts_more_than_what_is_remembered(world: World) -> None:
    world.put("a.yaml", policy("a"))
    world.inventory.put("a.yaml", b"[")
    world.inventory.put("b.yaml", policy("a", "Egress").encode())
    world.take()
    assert world.objects[key("a")].where.startswith("b.yaml")
    assert not any("twice" in (problem.problem or "") for problem in world.problems.values())


def test_two_definitions_in_one_file(world: World) -> None:
    world.put("a.yaml", policy("a"), policy("a", "Egress"))
    assert world.objects[key("a")].raw["spec"] == {"policyTypes": ["Ingress"]}
    assert list(world.problems) == ["a.yaml, document 2, line 6"]


def test_troubles_of_directories_come_and_go(world: World) -> None:
    world.inventory.directory_troubles({"sub": "cannot be listed; check its permissions"})
    (event,) = world.take()
    assert event == SourceProblem(where="sub", problem="cannot be listed; check its permissions", stale=True)
    world.inventory.directory_troubles({})
    assert world.take() == [SourceProblem(where="sub", problem=None)]


def test_the_order_of_changes_does_not_matter() -> None:
    files = {
        "a.yaml": [policy("a"), policy("b")],
        "b.yaml": [policy("b"), "[", node("n")],
        "sub/c.yaml": [node("n", "x")],
        "d.yaml": [policy("d").replace("name", "nam")],
    }
    states = []
    for order in itertools.permutations(files):
        for together in (True, False):
            world = World()
            for path in order:
                world.inventory.put(path, "---\n".join(files[path]).encode())
                if not together:
                    world.take()
            world.take()
            states.append(world.state)
    assert all(state == states[0] for state in states)


def found(text: str, path: str = "a.yaml") -> list[tuple[str, str]]:
    contents = read_contents(path, text.encode())
    assert not contents.troubles
    return [(f"{item.key.api_version} {item.key}", item.where) for item in contents.found]


def trouble(text: str) -> str:
    contents = read_contents("a.yaml", text.encode())
    assert not contents.found
    (only,) = contents.troubles
    assert only.where.startswith("a.yaml, document 1, ")
    assert "; " in only.problem
    return only.problem


def test_lists_are_taken_apart() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: v1, kind: Node, metadata: {name: b}}\n"
    assert found(text) == [("v1 Node a", "a.yaml, document 1, item 1, line 4"), ("v1 Node b", "a.yaml, document 1, item 2, item 1, line 8")]


def test_items_of_typed_lists_inherit() -> None:
    text = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n- {kind: null, metadata: {name: b, namespace: x}}\n"
    assert found(text) == [("v1 Pod default/a", "a.yaml, document 1, item 1, line 4"), ("v1 Pod x/b", "a.yaml, document 1, item 2, line 5")]
    assert found("apiVersion: v1\nkind: PodList\nitems: null\n") == []
    assert found("apiVersion: example.org/v1\nkind: WishList\nmetadata: {name: a}\n") == [
        ("example.org/v1 WishList default/a", "a.yaml, document 1, line 1")
    ]


def test_json_files() -> None:
    assert found('{"apiVersion": "v1", "kind": "Node",\n "metadata": {"name": "a"}}', "a.JSON") == [
        ("v1 Node a", "a.JSON, document 1, line 1")
    ]


def test_cluster_scoped_kinds_have_no_namespace() -> None:
    assert found("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: default}\n") == [
        ("v1 Namespace a", "a.yaml, document 1, line 1")
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", "is a number, not an object"),
        ("- a", "is a list, not an object"),
        ("kind: Pod\nmetadata: {name: a}", "apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: a}", "kind is missing"),
        ("apiVersion: 1\nkind: Pod", "apiVersion has the wrong type, a number (1)"),
        ("apiVersion: v1\nkind: Pod", "Pod: metadata is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", "Pod: metadata.name is missing; give"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}", "generateName needs an API server"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}", "Pod: metadata.name has the wrong type, a number (5)"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: 5}", "Pod a: metadata.namespace must be a string"),
        ("apiVersion: v1\nkind: List\nitems: {}", "List: items must be a list"),
        ("apiVersion: v1\nkind: List\nitems: [5]", "is a number, not an object"),
    ],
)
def test_what_has_no_identity_is_told(text: str, words: str) -> None:
    assert words in trouble(text)
