"""The doctor's findings where Docker, kind or a cluster are missing, broken, or not ours."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jslab import cli, doctor, doctor_cluster, doctor_docker, settings

OURS = {"app.kubernetes.io/managed-by": "jslab"}
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
NODES = ["jslab-control-plane", "jslab-worker", "jslab-worker2", "jslab-worker3"]
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
SPACE = "/api/v1/namespaces/jslab"
MARKER = "/api/v1/namespaces/kube-system/configmaps/jslab-cluster"


class Api(ThreadingHTTPServer):
    """Answers like an API server: 404 to what it does not hold, and yes to questions about rights."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.denied: set[str] = set()

    def holds(self, path: str, **body: Any) -> None:
        """Give an object."""
        self.answers[path] = (200, body)

    def refuses(self, path: str, status: int, message: str) -> None:
        """Refuse a path, as an API server words it."""
        self.answers[path] = (status, {"kind": "Status", "message": message})

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Return status and JSON."""
        if path in self.answers:
            return self.answers[path]
        if path == REVIEW:
            asked = body["spec"]["resourceAttributes"]
            part = f"/{asked['subresource']}" if asked["subresource"] else ""
            return 201, {
                "status": {"allowed": f"{asked['verb']} {asked['resource']}{part}" not in self.denied}
            }
        return 404, {"kind": "Status", "message": f"{path} not found"}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Api

    def do_GET(self) -> None:
        """Answer what is read."""
        self.reply(None)

    def do_POST(self) -> None:
        """Answer what is asked for with a body."""
        self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def reply(self, body: Any) -> None:
        """Send JSON, or a text as it is."""
        status, said = self.server.answer(self.path, body)
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def api() -> Iterator[Api]:
    """An API server with a default storage class and a namespace of ours."""
    with Api() as server:
        server.holds(CLASSES, items=[{"metadata": {"name": "standard", "annotations": DEFAULT}}])
        server.holds(SPACE, metadata={"name": "jslab", "labels": OURS})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it, and no setting from outside."""
    for name in [*os.environ]:
        if name.startswith("JSLAB_") or name in ("DOCKER_HOST", "KUBECONFIG"):
            monkeypatch.delenv(name)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JSLAB_STATE", str(tmp_path / "state"))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    """Put a program on the PATH."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def machine(
    folder: Path, states: list[str], *, config: str = "", bound: dict[str, int] | None = None
) -> None:
    """Put a docker and a kind on the PATH that tell of nodes in these states."""
    lines = "; ".join(f"echo {node} {state}" for node, state in zip(NODES, states, strict=False)) or "true"
    bindings = {f"{at}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(p)}] for at, p in (bound or {}).items()}
    bindings["6443/tcp"] = [{"HostIp": "127.0.0.1", "HostPort": "1"}]
    program(
        folder,
        "docker",
        f"""case $1 in
        version) echo "28.2.2 20.10.24" ;; ps) {lines} ;; info) echo 25000000000 ;;
        inspect) echo '{json.dumps(bindings)}' ;; *) echo "no such $1" >&2; exit 1 ;; esac""",
    )
    (folder / "kubeconfig").write_text(f"{config}\n")
    program(
        folder,
        "kind",
        f"""case "$1 $2" in "version ") echo kind v0.33.0 ;;
        "get clusters") echo {"jslab" if states else "other"} ;;
        "get kubeconfig") while read -r line; do echo "$line"; done < {folder}/kubeconfig ;; esac""",
    )


def kubeconfig(port: int, context: str = "kind-jslab", user: dict[str, Any] | None = None) -> str:
    """Write a kubeconfig for an API server on this machine, in JSON, which is YAML."""
    return json.dumps(
        {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": user or {"token": "t"}}],
            "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        }
    )


def findings(backend: str) -> dict[str, doctor.Finding]:
    """Make all checks; a check that found several things is there by its worst."""
    found = list(doctor_cluster.examine(backend))
    assert not any("could not be checked" in one.seen for one in found), found
    assert all(one.do or one.level == "ok" or one.check == "Docker, kind" for one in found), found
    order = ["ok", "warning", "problem"]
    return {one.check: one for one in sorted(found, key=lambda one: order.index(one.level))}


def unused_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# -- no Docker, no kind


def test_without_docker_and_kind_embedded_is_well_and_says_so_in_one_line(path: Path) -> None:
    (found,) = doctor_cluster.examine("embedded")
    assert found.level == "warning"
    assert "no docker, no kind" in found.seen
    assert "\n" not in doctor.as_line(found)
    assert doctor.healthy([found])


def test_with_both_on_the_path_embedded_says_so(path: Path) -> None:
    machine(path, [])
    (found,) = doctor_cluster.examine("embedded")
    assert found.level == "ok"


def test_without_docker_and_kind_the_backend_kind_lacks_both_and_the_rest_is_judged(path: Path) -> None:
    found = findings("kind")
    assert found["Docker"].level == found["kind"].level == "problem"
    assert "docker.io" in found["Docker"].do
    assert "curl -fLo /usr/local/bin/kind https://kind.sigs.k8s.io/dl/" in found["kind"].do
    assert {"memory", "server image"} <= found.keys()
    assert not {"kind cluster", "API server", "ports", "node image"} & found.keys()
    assert "--offline" in found["server image"].seen


def test_the_command_takes_a_backend_and_fails_without_docker(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "jslab", "doctor", "--json", "--backend", "kind"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (run.returncode, run.stderr) == (cli.CANNOT, "")
    problems = {one["check"] for one in json.loads(run.stdout)["findings"] if one["level"] == "problem"}
    assert problems >= {"Docker", "kind"}


def test_a_variable_chooses_the_backend_too(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JSLAB_BACKEND", "kubernetes")
    assert cli.main(["doctor"]) == cli.CANNOT
    said = capsys.readouterr().out
    assert "PROBLEM  context" in said
    assert "on the backend kubernetes" in said


@pytest.mark.parametrize(
    ("said", "host", "seen", "do"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
            "",
            "not running",
            "systemctl",
        ),
        ("failed to connect to the docker API at unix:///var/run/docker.sock", "", "docker API", "systemctl"),
        ("Cannot connect to the Docker daemon at unix:///gone.", "unix:///gone", "gone", "unset DOCKER_HOST"),
        ("permission denied while trying to connect to the docker API", "", "does not let you", "usermod"),
        ("a plugin is broken", "", "a plugin is broken", "correct what it names"),
    ],
)
def test_a_docker_that_does_not_answer_is_told_apart(
    path: Path, monkeypatch: pytest.MonkeyPatch, said: str, host: str, seen: str, do: str
) -> None:
    program(path, "docker", f"echo '{said}' >&2; exit 1")
    if host:
        monkeypatch.setenv("DOCKER_HOST", host)
    found = findings("kind")["Docker"]
    assert found.level == "problem"
    assert seen in found.seen
    assert do in found.do


def test_a_docker_that_hangs_is_a_problem_within_its_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_docker, "PROGRAM", 0.3)
    program(path, "docker", "/bin/sleep 60")
    found = findings("kind")["Docker"]
    assert (found.level, "did not end" in found.seen) == ("problem", True)


def test_a_kind_that_hangs_is_a_problem_within_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(path, [])
    program(path, "kind", "case $1 in version) echo kind v0 ;; *) /bin/sleep 60 ;; esac")
    monkeypatch.setattr(doctor_docker, "LIMIT", 1.0)
    found = findings("kind")["kind cluster"]
    assert (found.level, "did not answer" in found.seen) == ("problem", True)


def test_a_setting_that_makes_no_sense_is_one_finding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSLAB_TIMEOUT", "soon")
    (found,) = doctor_cluster.examine("kind")
    assert (found.level, "'soon'" in found.seen) == ("problem", True)


def test_what_only_embedded_needs_is_a_note_for_another_backend(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSLAB_SERVER", str(path / "gone"))
    levels = {one.check: one.level for one in doctor.examine("kind")}
    assert levels["nats-server"] == "warning"
    assert "memory" not in levels
    assert {one.check: one.level for one in doctor.examine()}["nats-server"] == "problem"


# -- the kind cluster


@pytest.mark.parametrize(
    ("states", "level", "seen", "do"),
    [
        ([], "warning", "there is no jslab yet", "jslab up --backend kind"),
        (["exited"] * 4, "warning", "jslab-worker2 exited", "jslab up --backend kind starts"),
        (["exited", *["running"] * 2, "paused"], "warning", "jslab-worker3 paused", "heal()"),
        (
            ["exited", "dead", "running", "running"],
            "problem",
            "jslab-worker dead",
            "docker logs jslab-worker ",
        ),
    ],
)
def test_the_nodes_are_judged(path: Path, states: list[str], level: str, seen: str, do: str) -> None:
    machine(path, states)
    found = findings("kind")
    assert found["kind cluster"].level == level
    assert seen in found["kind cluster"].seen
    assert do in found["kind cluster"].do
    assert "API server" not in found


def test_too_few_nodes_are_noted(path: Path, api: Api) -> None:
    api.holds(MARKER, metadata={"labels": OURS})
    api.holds("/api/v1/nodes", items=[])
    machine(path, ["running"] * 2, config=kubeconfig(api.server_port))
    assert "cluster.yaml names 4 nodes" in findings("kind")["kind cluster"].seen


def test_a_half_made_cluster_is_told_apart(path: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "kind-jslab.creating").write_text("{}")
    machine(path, ["running"])
    found = findings("kind")
    assert "half made" in found["kind cluster"].seen
    assert not {"API server", "ports"} & found.keys()


def test_a_dead_api_server_of_kind_is_a_problem(path: Path) -> None:
    machine(path, ["running"] * 4, config=kubeconfig(unused_port()))
    found = findings("kind")["API server"]
    assert found.level == "problem"
    assert "docker restart jslab-control-plane" in found.do


def test_a_kind_cluster_of_somebody_else_is_a_problem_and_not_looked_into(path: Path, api: Api) -> None:
    machine(path, ["running"] * 4, config=kubeconfig(api.server_port), bound={"30420": unused_port()})
    found = findings("kind")
    assert found["kind cluster"].level == "problem"
    assert "not the lab's" in found["kind cluster"].seen
    assert "kind delete cluster --name jslab" in found["kind cluster"].do
    assert not {"namespace", "ports", "storage class"} & found.keys()


def node(name: str, ready: str, **spec: Any) -> dict[str, Any]:
    """Return a node."""
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def test_nodes_that_are_not_ready_or_closed_are_noted(path: Path, api: Api) -> None:
    api.holds(MARKER, metadata={"labels": OURS}, data={"image": "jslab.local/nats-server:2.15.1"})
    api.holds("/api/v1/nodes", items=[node("a", "Unknown"), node("b", "True", unschedulable=True)])
    machine(path, ["running"] * 4, config=kubeconfig(api.server_port))
    found = findings("kind")
    assert "a is not ready, b takes no pods" in found["API server"].seen
    assert "loaded into the nodes" in found["server image"].seen
    assert found["namespace"].level == found["storage class"].level == found["node image"].level == "ok"


def test_the_mapped_ports_are_asked_who_is_there(path: Path, api: Api) -> None:
    api.holds(MARKER, metadata={"labels": OURS})
    api.holds("/api/v1/nodes", items=[node("a", "True")])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet(words: bytes) -> None:
            peer = server.accept()[0]
            peer.sendall(words)
            peer.close()

        for words, level, seen in ((b"INFO {}", "ok", "a NATS server"), (b"", "warning", "no server there")):
            machine(path, ["running"] * 4, config=kubeconfig(api.server_port), bound={"30420": port})
            thread = threading.Thread(target=greet, args=(words,))
            thread.start()
            found = findings("kind")["ports"]
            thread.join()
            assert (found.level, seen in found.seen) == (level, True), found
        found = findings("kind")["ports"]
        assert (found.level, "silent" in found.seen) == ("warning", True), found
    found = findings("kind")["ports"]
    assert (found.level, "closed" in found.seen) == ("problem", True), found
    assert "docker restart" in found.do


def test_a_stopped_cluster_whose_port_somebody_took_is_a_problem(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        machine(path, ["exited"] * 4, bound={"30420": port})
        found = findings("kind")["ports"]
        assert (found.level, str(port) in found.seen) == ("problem", True)
    found = findings("kind")["ports"]
    assert (found.level, str(port) in found.seen) == ("ok", True)


def test_before_the_cluster_is_made_free_ports_are_looked_for(path: Path) -> None:
    machine(path, [])
    found = findings("kind")["ports"]
    assert (found.level, "3 are free" in found.seen) == ("ok", True)


# -- the machine


@pytest.mark.parametrize(
    ("states", "free", "level"),
    [
        ([], 4e9, "ok"),
        ([], 2.5e9, "warning"),
        ([], 1.5e9, "problem"),
        (["running"] * 4, 1.5e9, "ok"),
        (["running"] * 4, 5e8, "warning"),
        (["exited"] * 4, 1.5e9, "problem"),
        ([], None, "ok"),
    ],
)
def test_memory_is_judged_by_whether_the_nodes_run(
    path: Path, monkeypatch: pytest.MonkeyPatch, states: list[str], free: float | None, level: str
) -> None:
    monkeypatch.setattr(doctor_docker, "free_memory", lambda: free)
    machine(path, states, config=kubeconfig(unused_port()))
    assert findings("kind")["memory"].level == level


@pytest.mark.parametrize(
    ("watches", "instances", "level"),
    [(524288, 512, "ok"), (192536, 128, "warning"), (8192, 512, "warning"), (1048576, 64, "problem")],
)
def test_inotify_limits_are_judged(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watches: int, instances: int, level: str
) -> None:
    (tmp_path / "max_user_watches").write_text(f"{watches}\n")
    (tmp_path / "max_user_instances").write_text(f"{instances}\n")
    monkeypatch.setattr(doctor_docker, "INOTIFY", tmp_path)
    (found,) = doctor_docker.inotify(doctor_docker.Sight(settings.read()))
    assert found.level == level
    assert level == "ok" or f"sysctl -w fs.inotify.max_user_watches={max(watches, 524288)} " in found.do


def test_a_node_image_that_this_docker_lacks_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(path, [])
    assert "kind's own" in findings("kind")["node image"].seen
    monkeypatch.setenv("JSLAB_KIND_IMAGE", "kind-node:v9")
    found = findings("kind")["node image"]
    assert (found.level, "docker pull kind-node:v9" in found.do) == ("warning", True)
    script = (path / "docker").read_text().replace("ps)", "image) echo linux/amd64 ;; ps)")
    (path / "docker").write_text(script)
    assert "linux/amd64" in findings("kind")["node image"].seen


def test_a_server_image_of_the_users_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSLAB_IMAGE", "nats:mine")
    assert "kind load docker-image nats:mine" in findings("kind")["server image"].seen


def test_manifests_that_do_not_parse_are_a_problem(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(path, [])
    (tmp_path / "statefulset.yaml").write_text("kind: [")
    monkeypatch.setenv("JSLAB_MANIFESTS", str(tmp_path))
    assert "statefulset.yaml" in findings("kind")["kind cluster"].seen


# -- a cluster that the user names


@pytest.fixture
def named(path: Path, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with a context ``work``, which is chosen."""
    file = tmp_path / "config"
    file.write_text(kubeconfig(api.server_port, "work"))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setenv("JSLAB_CONTEXT", "work")
    return file


def test_a_cluster_that_lacks_nothing(named: Path, api: Api) -> None:
    found = findings("kubernetes")
    assert [*found] == ["context", "API server", "namespace", "storage class", "rights"]
    assert {one.level for one in found.values()} == {"ok"}
    assert f"http://127.0.0.1:{api.server_port}" in found["context"].seen
    assert "standard is the default" in found["storage class"].seen


def test_a_context_must_be_named_and_exist(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "wrok"):
        monkeypatch.setenv("JSLAB_CONTEXT", name)
        (found,) = doctor_cluster.examine("kubernetes")
        assert found.level == "problem"
        assert "there are: work" in found.seen
        assert "export JSLAB_CONTEXT=work" in found.do


def test_without_a_kubeconfig_there_is_no_context(named: Path) -> None:
    named.unlink()
    found = findings("kubernetes")["context"]
    assert "there are: none" in found.seen
    assert "no file" in found.seen


@pytest.mark.parametrize("text", ["contexts: [", "just words", "contexts: [{name: work}]", "contexts: 3"])
def test_a_file_that_is_no_kubeconfig_is_a_problem(named: Path, text: str) -> None:
    named.write_text(text)
    (found,) = doctor_cluster.examine("kubernetes")
    assert (found.level, "is no kubeconfig" in found.seen) == ("problem", True)


def test_a_context_without_a_cluster_is_a_finding(named: Path) -> None:
    named.write_text('{"contexts": [{"name": "work", "context": {"cluster": "gone", "user": "u"}}]}')
    found = list(doctor_cluster.examine("kubernetes"))
    assert found[-1].level == "problem"


def test_a_dead_api_server_is_a_problem_and_ends_the_questions(named: Path) -> None:
    named.write_text(kubeconfig(unused_port(), "work"))
    found = findings("kubernetes")
    assert [*found] == ["context", "API server"]
    assert "cannot be reached" in found["API server"].seen


def test_a_silent_api_server_is_a_problem_within_its_time(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_cluster, "PATIENCE", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as server:
        named.write_text(kubeconfig(server.getsockname()[1], "work"))
        assert "cannot be reached" in findings("kubernetes")["API server"].seen


def test_credentials_that_wait_for_somebody_are_a_problem_within_their_time(
    named: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_docker, "LIMIT", 0.5)
    version = "client.authentication.k8s.io/v1"
    login = {"apiVersion": version, "command": "/bin/sleep", "args": ["2"], "interactiveMode": "Never"}
    named.write_text(kubeconfig(api.server_port, "work", {"exec": login}))
    found = findings("kubernetes")["API server"]
    assert (found.level, "did not answer" in found.seen) == ("problem", True)
    assert "log in" in found.do


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "Unauthorized"), (403, 'namespaces "jslab" is forbidden: User "system:anonymous" cannot get')],
)
def test_credentials_that_are_not_accepted_are_a_problem(
    named: Path, api: Api, status: int, message: str
) -> None:
    api.refuses(SPACE, status, message)
    found = findings("kubernetes")
    assert [*found] == ["context", "credentials"]
    assert message in found["credentials"].seen


def test_something_else_at_the_address_is_a_problem(named: Path, api: Api) -> None:
    api.answers[SPACE] = (200, "<html>please log in</html>")
    found = findings("kubernetes")["API server"]
    assert (found.level, "it is none" in found.seen) == ("problem", True)


def test_a_namespace_of_somebody_else_is_a_problem(named: Path, api: Api) -> None:
    api.holds(SPACE, metadata={"name": "jslab", "labels": {}})
    found = findings("kubernetes")["namespace"]
    assert (found.level, "not the lab's" in found.seen) == ("problem", True)
    assert "JSLAB_NAMESPACE" in found.do


def test_a_namespace_that_goes_is_noted(named: Path, api: Api) -> None:
    api.holds(SPACE, metadata={"name": "jslab", "labels": OURS, "deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert "being deleted" in findings("kubernetes")["namespace"].seen


def test_a_namespace_that_cannot_be_looked_at_is_a_problem(named: Path, api: Api) -> None:
    api.refuses(SPACE, 403, 'User "ana" cannot get resource "namespaces"')
    found = findings("kubernetes")
    assert found["API server"].level == "ok"
    assert (found["namespace"].level, "ana" in found["namespace"].seen) == ("problem", True)


def test_a_cluster_without_a_default_class_is_told_how_to_make_one(named: Path, api: Api) -> None:
    api.holds(CLASSES, items=[{"metadata": {"name": "slow"}}])
    found = findings("kubernetes")["storage class"]
    assert (found.level, "has: slow" in found.seen) == ("problem", True)
    assert "kubectl --context work annotate storageclass slow" in found.do
    api.holds(CLASSES, items=[])
    assert "provisioner" in findings("kubernetes")["storage class"].do
    api.refuses(CLASSES, 403, "User cannot list")
    assert findings("kubernetes")["storage class"].level == "warning"


def test_a_class_that_the_manifests_name_must_exist(
    named: Path, api: Api, edited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = 'accessModes: ["ReadWriteOnce"]'
    folder = edited("statefulset.yaml", claim, f"storageClassName: fast\n        {claim}")
    monkeypatch.setenv("JSLAB_MANIFESTS", str(folder))
    found = findings("kubernetes")["storage class"]
    assert (found.level, "name fast" in found.seen) == ("problem", True)
    api.holds(CLASSES, items=[{"metadata": {"name": "fast"}}])
    assert findings("kubernetes")["storage class"].level == "ok"


def test_all_missing_rights_are_in_one_finding(named: Path, api: Api) -> None:
    del api.answers[SPACE]
    api.denied = {"create namespaces", "create statefulsets", "patch statefulsets", "get pods/proxy"}
    (found,) = [one for one in doctor_cluster.examine("kubernetes") if one.check == "rights"]
    assert found.level == "problem"
    for words in ("create namespaces", "create, patch statefulsets", "get pods/proxy"):
        assert words in found.seen
    assert "kubectl create namespace jslab && kubectl label" in found.do
    assert "--clusterrole=edit" in found.do


def test_the_right_to_make_the_namespace_is_not_needed_when_it_is_there(named: Path, api: Api) -> None:
    api.denied = {"create namespaces"}
    assert findings("kubernetes")["rights"].level == "ok"
    del api.answers[SPACE]
    found = findings("kubernetes")["rights"]
    assert (found.level, "rolebinding" in found.do) == ("problem", False)


def test_rights_that_cannot_be_asked_about_are_noted(named: Path, api: Api) -> None:
    api.refuses(REVIEW, 403, "no reviews")
    assert findings("kubernetes")["rights"].level == "warning"
