"""Keep a room warm without heating the street."""

import time
from dataclasses import dataclass


@dataclass
class Reading:
    celsius: float
    window_open: bool


def wanted(reading: Reading, goal: float = 20.5) -> bool:
    if reading.window_open:
        return False
    return reading.celsius < goal - 0.5


def main() -> None:
    while True:
        reading = Reading(celsius=19.0, window_open=False)
        print("heat" if wanted(reading) else "rest")
        time.sleep(60)


if __name__ == "__main__":
    main()
