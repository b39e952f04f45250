"""How fast the playground is: `python -m benchmarks.play`, with Chromium and playwright.

From the command to the first picture that moves, in a browser that runs already and in one that is started too, and
pictures a second while the network learns, counted where they are drawn.
"""

import shutil
import subprocess
import sys
import time
from statistics import median
from typing import Any

RUNS, SECONDS = 3, 5.0
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
FRAMES = "Number(document.documentElement.dataset.frames)"


def start() -> tuple[Any, str]:
    """Run the command; return its process and the address it prints."""
    command = [sys.executable, "-m", "xpnet", "play", "--no-browser", "--backend", "numpy"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def until(page: Any, frames: int) -> None:
    """Wait for so many pictures."""
    while not page.evaluate(f"{FRAMES} >= {frames}"):
        time.sleep(0.005)


def moving(page: Any, address: str) -> None:
    """Open the page, press Run as soon as the network is there, and wait for the second picture."""
    page.goto(address)
    until(page, 1)
    page.click("#run")
    until(page, 3)


def first(driver: Any, warm: bool) -> float:
    """Return the seconds from the command to the first picture that moves."""

    def launch() -> Any:
        return driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)

    browser = launch() if warm else None
    page = browser.new_page() if browser else None
    begun = time.perf_counter()
    process, address = start()
    browser = browser or launch()
    try:
        moving(page or browser.new_page(), address)
        return time.perf_counter() - begun
    finally:
        browser.close()
        process.kill()
        process.communicate()


def rate(page: Any, data: str, speed: str) -> float:
    """Return the pictures a second while these data are learned."""
    page.check(f"[name=data][value={data}]", force=True)
    page.select_option("#speed", speed)
    time.sleep(1.0)
    begun, frames = time.perf_counter(), page.evaluate(FRAMES)
    time.sleep(SECONDS)
    return float((page.evaluate(FRAMES) - frames) / (time.perf_counter() - begun))


def main() -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        for warm in (True, False):
            seconds = [first(driver, warm) for _ in range(RUNS)]
            how = "a browser that runs" if warm else "a browser that is started"
            print(f"command to first moving picture, {how}: median {median(seconds):.2f} s,", end=" ")
            print(f"{min(seconds):.2f} to {max(seconds):.2f}")
        process, address = start()
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        moving(page, address)
        for data, speed in (("circles", "20"), ("spirals", "20"), ("spirals", "0"), ("mnist", "0")):
            pace = "as fast as can be" if speed == "0" else f"{speed} epochs a second"
            print(f"{data}, {pace}: {rate(page, data, speed):.1f} pictures a second")
        browser.close()
        process.kill()
        process.communicate()


if __name__ == "__main__":
    main()
