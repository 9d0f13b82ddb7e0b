"""The node containers of a kind cluster, as Docker has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jslab.deployment import tools
from jslab.errors import DeploymentError, ToolError
from jslab.waiting import until

FREEZE = 30.0


class Nodes:
    """The containers that carry the label of one kind cluster."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self.control_plane = f"{cluster}-control-plane"

    async def states(self) -> dict[str, str]:
        """Return the state of each node container: ``running``, ``paused``, ``exited``, ``created``."""
        which = f"label=io.x-k8s.kind.cluster={self._cluster}"
        lines = await tools.run("docker", "ps", "-a", "--filter", which, "--format", "{{.Names}} {{.State}}")
        return dict(sorted(line.split() for line in lines.splitlines()))

    def started(self, states: Mapping[str, str]) -> bool:
        """Tell whether the control plane ever ran; before, docker lists it and says that there is none."""
        return states.get(self.control_plane, "created") != "created"

    async def bound(self) -> dict[str, str]:
        """Return the port of 127.0.0.1 for each port of the control plane that the cluster's maker mapped."""
        shown = await tools.run(
            *("docker", "inspect", self.control_plane),
            *("--format", "{{json .HostConfig.PortBindings}}"),
        )
        bindings: dict[str, Any] = json.loads(shown) or {}
        return {key.partition("/")[0]: entries[0]["HostPort"] for key, entries in bindings.items() if entries}

    async def start(self, *nodes: str) -> None:
        """Start containers that were stopped, as by a restart of the machine."""
        await tools.run("docker", "start", *nodes, timeout=60)

    async def stop(self, *nodes: str) -> None:
        """Stop containers."""
        await tools.run("docker", "stop", *nodes, timeout=60)

    async def freeze(self, node: str) -> None:
        """Freeze a node container, again when it could not be. Raises DeploymentError.

        Docker gives up on a container in which a process starts at that very moment ("unable to freeze").
        """
        refused: list[ToolError] = []

        async def frozen() -> bool:
            try:
                await tools.run("docker", "pause", node)
            except ToolError as err:
                refused.append(err)
            return (await self.states()).get(node) == "paused"

        await until(
            frozen,
            what=f"the node {node} to freeze",
            timeout=FREEZE,
            every=0.2,
            seen=lambda: refused[-1].seen if refused else "it does not",
            do="see await lab.status(); await lab.faults.heal() puts all servers back",
            error=DeploymentError,
        )

    async def thaw(self, node: str) -> None:
        """Let a frozen node container go on; one that is not frozen goes on as it is."""
        if (await self.states()).get(node) == "paused":
            await tools.run("docker", "unpause", node)

    async def signal(self, node: str, signal: str, container: str) -> None:
        """Send a signal to a container of a pod, by its id, in the node that it runs on."""
        kill = ("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", signal, container)
        await tools.run("docker", "exec", node, *kill)
