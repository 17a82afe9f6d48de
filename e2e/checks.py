"""Runs the checks of a script: one line each, and the last line counts them."""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Callable
from typing import Any

Check = Callable[..., Any]


def run(
    checks: list[Check], *args: Any, each: Callable[[Check], Any] | None = None, ignored: int = 0,
) -> int:
    """Call each check with the arguments, or hand it to `each`; return the exit code.

    `ignored` counts those that were left out for what is not there.
    """
    failed = 0
    for check in checks:
        began = time.monotonic()
        try:
            if each is not None:
                each(check)
            elif inspect.iscoroutinefunction(check):
                asyncio.run(check(*args))
            else:
                check(*args)
            print(f"ok: {check.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED: {check.__name__}", flush=True)
            traceback.print_exc()
    print(f"{len(checks) - failed} passed, {failed} failed, {ignored} ignored")
    return 1 if failed else 0
