"""Runs the checks of a client's script: one line each, and the last line counts them."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from typing import Any


def run(checks: list[Callable[..., Any]], *clients: Any) -> int:
    """Call each check; return how many failed as an exit code."""
    failed = 0
    for check in checks:
        try:
            if inspect.iscoroutinefunction(check):
                asyncio.run(check(*clients))
            else:
                check(*clients)
            print(f"ok: {check.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED: {check.__name__}")
            traceback.print_exc()
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0
