"""Rolling statistics of sensor readings, as an edge device would keep them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import deque
from dataclasses import dataclass, field


@dataclass
class Window:
    """Mean and standard deviation of the newest readings."""

    size: int
    values: deque[float] = field(default_factory=deque)

    def push(self, value: float) -> None:
        if not math.isfinite(value):
            raise ValueError(f"reading {value!r} is not a number")
        self.values.append(value)
        while len(self.values) > self.size:
            self.values.popleft()

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        mean = self.mean
        return math.sqrt(sum((v - mean) ** 2 for v in self.values) / len(self.values))

    def is_outlier(self, value: float, sigmas: float = 3.0) -> bool:
        if len(self.values) < self.size:
            return False
        return abs(value - self.mean) > sigmas * max(self.deviation, 1e-9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--sigmas", type=float, default=3.0)
    args = parser.parse_args()
    window = Window(args.size)
    for line in sys.stdin:
        reading = json.loads(line)
        value = float(reading["value"])
        if window.is_outlier(value, args.sigmas):
            print(json.dumps({"outlier": value, "mean": window.mean}))
        window.push(value)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
