"""Under ``CI=true`` a skipped test is a failure: the machine lacked something that CI must have.

Loaded by ``make test`` with ``-p tests.no_skips``. Locally a skip stays a skip; the summary has its reason.
"""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI=true allows none: {reason}"


def pytest_collectreport(report):
    """A module that skips itself while it is collected never reaches the hook above."""
    if os.environ.get("CI") == "true" and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped at collection, and CI=true allows none"
