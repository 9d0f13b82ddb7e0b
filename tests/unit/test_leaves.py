"""The table of what embedded makes of each line: complete, without dead rules, and held to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jslab.deployment import leaves, manifest
from jslab.errors import ManifestError
from jslab.settings import course_folder

COURSE = manifest.read(course_folder("manifests"))
Edit = Callable[..., Path]


def test_every_line_of_the_courses_manifests_is_in_the_table() -> None:
    assert [leaf.path for leaf in COURSE.leaves if leaves.rule_for(leaf.path) is None] == []


def test_no_rule_is_dead() -> None:
    used = {leaves.rule_for(leaf.path) for leaf in COURSE.leaves}
    assert [rule.pattern for rule in leaves.RULES if rule not in used] == []


def test_what_kubernetes_would_fill_in_is_a_line_of_the_course() -> None:
    assert set(leaves.DEFAULTS) <= {leaf.path for leaf in COURSE.leaves}


def test_the_courses_manifests_are_not_refused() -> None:
    leaves.refuse_what_embedded_cannot(COURSE)


def test_the_table_has_a_row_and_a_reason_for_each_line() -> None:
    rows = leaves.table(COURSE)
    assert {path for path, _, _ in rows} == {leaf.path for leaf in COURSE.leaves}
    assert {verdict for _, verdict, _ in rows} == {"honoured", "ignored"}
    assert all(why for _, _, why in rows)
    assert ("StatefulSet spec.replicas", "honoured", "so many servers are started") in rows


@pytest.mark.parametrize(
    ("file", "old", "new", "path"),
    [
        (
            "statefulset.yaml",
            "podManagementPolicy: Parallel",
            "podManagementPolicy: OrderedReady",
            "StatefulSet spec.podManagementPolicy",
        ),
        # Taking the line away means the same: Kubernetes fills in OrderedReady.
        (
            "statefulset.yaml",
            "  podManagementPolicy: Parallel\n",
            "",
            "StatefulSet spec.podManagementPolicy",
        ),
        (
            "statefulset.yaml",
            "      enableServiceLinks: false",
            "      hostNetwork: true",
            "StatefulSet spec.template.spec.hostNetwork",
        ),
        (
            "statefulset.yaml",
            "emptyDir: {}",
            "emptyDir: {medium: Memory}",
            "StatefulSet spec.template.spec.volumes[].emptyDir.medium",
        ),
        (
            "statefulset.yaml",
            "mountPath: /data\n",
            "mountPath: /data\n              subPath: streams\n",
            "StatefulSet spec.template.spec.containers[].volumeMounts[].subPath",
        ),
        ("configmap.yaml", "\ndata:\n", "\ndata:\n  users.txt: |\n    nobody\n", "ConfigMap data.users.txt"),
    ],
)
def test_a_line_embedded_cannot_show_is_refused(
    edited: Edit, file: str, old: str, new: str, path: str
) -> None:
    folder = edited(file, old, new)
    with pytest.raises(ManifestError) as caught:
        leaves.refuse_what_embedded_cannot(manifest.read(folder))
    assert f"{folder / file}" in str(caught.value)
    assert path in str(caught.value)
    assert "use a Kubernetes backend" in caught.value.do


def test_a_document_of_another_kind_is_refused(edited: Edit) -> None:
    folder = edited("services.yaml", "", "")
    (folder / "secret.yaml").write_text("kind: Secret\nstringData:\n  key: value\n")
    with pytest.raises(ManifestError, match=r"secret\.yaml: Secret stringData\.key: the embedded"):
        leaves.refuse_what_embedded_cannot(manifest.read(folder))


def test_the_table_says_what_would_be_refused(edited: Edit) -> None:
    folder = edited("statefulset.yaml", "      enableServiceLinks: false", "      hostNetwork: true")
    rows = {path: (verdict, why) for path, verdict, why in leaves.table(manifest.read(folder))}
    assert rows["StatefulSet spec.template.spec.hostNetwork"][0] == "refused"
    assert "anything but Parallel is refused" in rows["StatefulSet spec.podManagementPolicy"][1]
