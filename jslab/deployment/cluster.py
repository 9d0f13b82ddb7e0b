"""The one module that speaks with a Kubernetes API server; the others say what they want of it.

Objects are plain dicts, as they stand in YAML. Requests go through the package's dynamic client, which
behaves the same in every version of it; its typed models do not. Each call runs in a thread and has a
timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from jslab.errors import ClusterError, ManifestError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.dynamic import DynamicClient

Object: TypeAlias = dict[str, Any]
T = TypeVar("T")

# Seconds to connect, and to wait for an answer: the package itself would wait for ever.
TIMEOUT = (3.0, 10.0)
# A frozen server answers nothing, and a card that asks three of them should not take half a minute.
POD_TIMEOUT = (3.0, 2.0)
# How often, and after how many seconds, a new forward is looked at for what it has not heard.
LOOKS, LOOK = 2, 0.02
FIELD_MANAGER = "jslab"
OURS = {"app.kubernetes.io/managed-by": "jslab"}

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, INVALID = 400, 401, 403, 404, 409, 422


@dataclass(frozen=True, slots=True)
class Kind:
    """Where objects of one kind live in the API."""

    api: str
    plural: str
    namespaced: bool = True


KINDS = {
    "Namespace": Kind("api/v1", "namespaces", namespaced=False),
    "Node": Kind("api/v1", "nodes", namespaced=False),
    "Pod": Kind("api/v1", "pods"),
    "Service": Kind("api/v1", "services"),
    "ServiceAccount": Kind("api/v1", "serviceaccounts"),
    "ConfigMap": Kind("api/v1", "configmaps"),
    "Secret": Kind("api/v1", "secrets"),
    "Event": Kind("api/v1", "events"),
    "PersistentVolumeClaim": Kind("api/v1", "persistentvolumeclaims"),
    "StatefulSet": Kind("apis/apps/v1", "statefulsets"),
    "PodDisruptionBudget": Kind("apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": Kind("apis/networking.k8s.io/v1", "networkpolicies"),
    "StorageClass": Kind("apis/storage.k8s.io/v1", "storageclasses", namespaced=False),
    "Lease": Kind("apis/coordination.k8s.io/v1", "leases"),
    "SelfSubjectAccessReview": Kind(
        "apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", namespaced=False
    ),
}


class RefusalError(ClusterError):
    """The API server answered, with an error; ``status`` is its HTTP status."""

    def __init__(self, what: str, *, status: int, seen: str, do: str) -> None:
        super().__init__(what, seen=seen, do=do)
        self.status = status


class Cluster:
    """One namespace of one cluster. Calls raise ClusterError, with cause and remedy."""

    def __init__(self, context: str, namespace: str, config: Mapping[str, Any] | None = None) -> None:
        """Use ``context`` of ``config``, a kubeconfig's content, else of the user's own; asks nothing yet."""
        self.context = context
        self.namespace = namespace
        self.timeout = TIMEOUT
        """Seconds to connect and to wait for an answer, of ``ask`` and what is made of it."""
        self._config = config
        self._dynamic: DynamicClient | None = None
        self._making = threading.Lock()

    def beside(self, namespace: str) -> Cluster:
        """Return another namespace of the same cluster."""
        return Cluster(self.context, namespace, self._config)

    @property
    def kubectl(self) -> str:
        """How the command line would begin that speaks of this namespace."""
        # The credentials of a kind cluster of ours are in no kubeconfig until somebody wants them there.
        first = (
            f"kind export kubeconfig --name {self.context.removeprefix('kind-')}; " if self._config else ""
        )
        return f"{first}kubectl --context {self.context} -n {self.namespace}"

    async def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """Return an object such as ``("Pod", "nats-0")``, None when there is none."""
        try:
            return await self._ask("get", kind, name, namespace=namespace)
        except RefusalError as err:
            if err.status == NOT_FOUND:
                return None
            raise

    async def find(
        self, kind: str, labels: Mapping[str, str] | None = None, *, fields: str | None = None
    ) -> list[Object]:
        """Return the objects that carry all of ``labels``; ``fields`` is a field selector."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        found = await self._ask("get", kind, None, label_selector=selector or None, field_selector=fields)
        return list(found["items"])

    async def apply(self, body: Object, *, dry_run: bool = False) -> Object:
        """Create or change an object until it says what ``body`` says (server-side apply)."""
        if body["kind"] not in KINDS:
            raise ManifestError(
                f"jslab applies no {body['kind']}",
                seen=f"{body['kind']} {body['metadata'].get('name')}",
                do=f"leave it out; these can be applied: {', '.join(KINDS)}",
            )
        return await self._ask(
            "patch",
            body["kind"],
            body["metadata"]["name"],
            body=body,
            content_type="application/apply-patch+yaml",
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
            dry_run="All" if dry_run else None,
        )

    async def create(self, body: Object, *, namespace: str | None = None) -> Object:
        """Create an object; RefusalError with status 409 when there is one."""
        return await self._ask("post", body["kind"], None, body=body, namespace=namespace)

    async def patch(self, kind: str, name: str, body: Object, *, namespace: str | None = None) -> Object:
        """Merge ``body`` into an object."""
        content = "application/merge-patch+json"
        return await self._ask("patch", kind, name, body=body, content_type=content, namespace=namespace)

    async def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object, a pod with ``grace`` seconds to leave; False when there was none."""
        body: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._ask("delete", kind, name, body=body)
        except RefusalError as err:
            if err.status == NOT_FOUND:
                return False
            raise
        return True

    async def ask_pod(self, pod: str, port: int, path: str) -> tuple[int, Any]:
        """GET ``path`` of a pod, by way of the API server; status 0 when the pod does not answer."""
        path, _, query = path.partition("?")
        pairs = [tuple(pair.partition("=")[::2]) for pair in query.split("&") if pair]
        return await asyncio.to_thread(self._ask_pod, f"{pod}:{port}", path, pairs)

    async def log(self, pod: str, lines: int, *, previous: bool = False) -> str:
        """Return a pod's last log lines, or those of its container before; empty when there are none."""
        options = [("tailLines", lines), ("previous", str(previous).lower())]
        try:
            return await asyncio.to_thread(
                self._translated, f"get pods/log {pod}", functools.partial(self._log, pod, options)
            )
        except RefusalError as err:
            if err.status in (BAD_REQUEST, NOT_FOUND):
                return ""
            raise

    def forward(self, pod: str, port: int) -> Any:
        """Open a connection to a port of a pod: the package's PortForward. Blocks."""
        from kubernetes.client import CoreV1Api
        from kubernetes.stream import portforward

        # A client of its own: while it connects, the package replaces a method of the client.
        api = CoreV1Api(self._new_client())
        open_it = functools.partial(
            portforward,
            api.connect_get_namespaced_pod_portforward,
            pod,
            self.namespace,
            ports=str(port),
            _request_timeout=TIMEOUT[1],
        )
        opened = self._translated(f"create pods/portforward {pod}", open_it)
        _hang_up_quietly(opened)
        _wake(opened)
        return opened

    def close(self) -> None:
        """Close the connections to the API server; the next call opens one again."""
        if self._dynamic is not None:
            self._dynamic.client.rest_client.pool_manager.clear()

    def ask(
        self, method: str, kind: str, name: str | None, *, namespace: str | None = None, **options: Any
    ) -> Object:
        """Send one request and wait for the answer in this thread; the others do it in one of their own."""
        path = self._path(KINDS[kind], name, namespace)
        verb = {"post": "create"}.get(method, method if name else "list")
        what = f"{verb} {KINDS[kind].plural} {name or ''}".rstrip()

        def call() -> Object:
            given = {key: value for key, value in options.items() if value is not None}
            answer = self._client().request(
                method, path, serialize=False, _request_timeout=self.timeout, query_params=[], **given
            )
            return dict(json.loads(answer.data))

        return self._translated(what, call)

    def may(self, verb: str, kind: str, part: str = "") -> bool:
        """Ask, in this thread, whether we have a right; ``part`` is a subresource such as ``log``."""
        known = KINDS[kind]
        asked = {
            "verb": verb,
            "group": known.api.partition("/")[2].rpartition("/")[0],
            "resource": known.plural,
            "subresource": part,
            "namespace": self.namespace if known.namespaced else "",
        }
        if kind == "Namespace" and verb != "create":
            # A role inside a namespace may cover the namespace itself; making one is a right of its own.
            asked |= {"namespace": self.namespace, "name": self.namespace}
        review = "SelfSubjectAccessReview"
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": review,
            "spec": {"resourceAttributes": asked},
        }
        return bool(self.ask("post", review, None, body=body)["status"].get("allowed"))

    async def _ask(self, *arguments: Any, **options: Any) -> Object:
        return await asyncio.to_thread(self.ask, *arguments, **options)

    def _path(self, kind: Kind, name: str | None, namespace: str | None) -> str:
        space = f"/namespaces/{namespace or self.namespace}" if kind.namespaced else ""
        return f"/{kind.api}{space}/{kind.plural}" + (f"/{name}" if name else "")

    def _ask_pod(self, target: str, path: str, query: list[Any]) -> tuple[int, Any]:
        import urllib3.exceptions
        from kubernetes.client import ApiException

        address = f"{self._path(KINDS['Pod'], target, None)}/proxy{path}"

        def call() -> tuple[int, Any]:
            try:
                answer = self._client().request(
                    "get", address, serialize=False, _request_timeout=POD_TIMEOUT, query_params=query
                )
            except urllib3.exceptions.MaxRetryError as err:
                if isinstance(err.reason, urllib3.exceptions.ReadTimeoutError):
                    return 0, None  # the pod is silent, as a frozen one is
                raise
            return answer.status, _json(answer.data)

        try:
            return self._translated(f"get pods/proxy {target}", call)
        except RefusalError as err:
            cause = err.__cause__
            body = _json(cause.body) if isinstance(cause, ApiException) else None
            if isinstance(body, dict) and body.get("kind") == "Status":
                if err.status in (UNAUTHORIZED, FORBIDDEN):
                    raise
                return 0, None  # the API server speaks: it did not reach the pod
            return err.status, body

    def _log(self, pod: str, options: list[Any]) -> str:
        address = f"{self._path(KINDS['Pod'], pod, None)}/log"
        answer = self._client().request(
            "get", address, serialize=False, _request_timeout=TIMEOUT, query_params=options
        )
        return str(answer.data.decode(errors="replace"))

    def _client(self) -> DynamicClient:
        with self._making:  # calls come from several threads at once
            if self._dynamic is None:
                from kubernetes.dynamic import DynamicClient

                # No discovery: it would write what it finds to a file, and the kinds above are known.
                self._dynamic = DynamicClient(  # type: ignore[no-untyped-call]
                    self._new_client(), discoverer=lambda *_: None
                )
            return self._dynamic

    def _new_client(self) -> ApiClient:
        import urllib3
        from kubernetes import client as package
        from kubernetes import config

        # Without this a request that got no answer would be sent three times more, each for its whole time,
        # and each with a warning in the notebook.
        configuration = package.Configuration()
        configuration.retries = urllib3.Retry(0)
        given: dict[str, Any] = {
            "context": self.context,
            "persist_config": False,
            "client_configuration": configuration,
        }
        client: ApiClient
        if self._config is None:
            # The package reads the variable once, when it is imported; a notebook may set it later.
            file = os.environ.get("KUBECONFIG") or "~/.kube/config"
            client = config.new_client_from_config(file, **given)  # type: ignore[no-untyped-call]
        else:
            client = config.new_client_from_config_dict(dict(self._config), **given)  # type: ignore[no-untyped-call]
        return client

    def _translated(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, and turn the package's errors into ours."""
        import urllib3.exceptions
        import yaml
        from kubernetes.client import ApiException
        from kubernetes.config import ConfigException

        try:
            return call()
        except ApiException as err:
            if not err.status:
                raise self._unreachable(err.reason) from err
            raise self._refusal(what, err) from err
        except (ConfigException, yaml.YAMLError) as err:
            raise ClusterError(
                f"the context {self.context} cannot be used",
                seen=str(err),
                do="correct your kubeconfig, or name another context",
            ) from err
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise self._unreachable(getattr(err, "reason", None) or err) from err

    def _unreachable(self, seen: object) -> ClusterError:
        if "CERTIFICATE_VERIFY_FAILED" in str(seen):
            return ClusterError(
                f"what answers for the context {self.context} is not the cluster of your kubeconfig",
                seen=str(seen),
                do="a proxy in between, or a cluster made anew: get its credentials again",
            )
        return ClusterError(
            f"the API server of the context {self.context} cannot be reached",
            seen=str(seen),
            do=f"does `{self.kubectl} get pods` answer? Start the cluster or connect to its network, and try "
            "again",
        )

    def _refusal(self, what: str, err: Any) -> RefusalError:
        said = _json(err.body)
        seen = f"{err.status} {said.get('message') if isinstance(said, dict) else err.reason}"
        if err.status == UNAUTHORIZED:
            return RefusalError(
                f"the cluster of the context {self.context} does not accept your credentials",
                status=err.status,
                seen=seen,
                do="they are wrong or have expired: log in to the cluster again",
            )
        if err.status == FORBIDDEN:
            return RefusalError(
                f"the cluster of the context {self.context} does not let you {what}",
                status=err.status,
                seen=seen,
                do="ask who runs the cluster for that right in this namespace, or use another namespace",
            )
        return RefusalError(
            f"the cluster of the context {self.context} did not {what}",
            status=err.status,
            seen=seen,
            do="correct what it names",
        )


def _hang_up_quietly(forward: Any) -> None:
    """Let a forward whose pod is gone end as closed.

    The package's thread knows one exception for that; any other ends it with a traceback on the screen.
    """
    import websocket

    receive = forward.websocket.recv_data_frame

    def quiet(*arguments: Any) -> Any:
        # The thread forgets a socket that the other side has closed, and never closes it itself.
        try:
            frame = receive(*arguments)
        except (OSError, websocket.WebSocketException) as err:
            forward.websocket.shutdown()
            raise websocket.WebSocketConnectionClosedException(str(err)) from err
        if not forward.websocket.connected:
            forward.websocket.shutdown()
        return frame

    forward.websocket.recv_data_frame = quiet


def _wake(forward: Any) -> None:
    """Have a forward look at what came together with the answer to its first request.

    The package's thread waits at the socket, and does not see what TLS has decrypted already: a server that
    speaks first, as NATS does, was never heard in 27 of 360 connections. A PING is answered, which the thread
    does see; it reads the rest on the way. (kubernetes 37.0, ``PortForward._proxy``.)
    """
    for _ in range(LOOKS):
        sock = forward.websocket.sock
        if not isinstance(sock, ssl.SSLSocket) or not sock.pending():
            return
        time.sleep(LOOK)
    with contextlib.suppress(OSError):
        forward.websocket.ping()


def _json(body: Any) -> Any:
    try:
        return json.loads(body)
    except (TypeError, ValueError):
        return None
