"""What the page costs a browser at 200 events a second. `python -m bench.page [--seconds N] [--rounds N] [CHECKOUT ...]`.

The gateway with the simulated exchange at that rate, and a headless Chromium with the page, the candles and then the price line
on show. Told is the CPU time of the page's own process and of Chromium's others, in percent of a core: left alone, and while
something asks for every frame, which is also how frames are counted; and tasks of more than 50 ms. The page is the one of
this checkout, and by turns that of each other one which is named. Chromium has no graphics card here: what a card would draw
is in the share of the others.
"""

from __future__ import annotations

import argparse
import mimetypes
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, CDPSession, Page, Route, sync_playwright

from bench.support import machine
from bench.support.gateway import gateway
from bench.support.processes import ROOT, BenchError, end, interruptible, python
from core.kafka.embedded import EmbeddedCluster

RATE: Final = 200
TOPICS: Final = ("market-events", "order-commands")
WINDOW: Final = (1440, 900)
SETTLE_SECONDS: Final = 5.0
TARGET: Final = 15.0
VIEWS: Final = {"candles": "1m", "price line": "live"}
ARGUMENTS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    # What is given to it in place of the gateway's files counts as from elsewhere.
    "--disable-features=LocalNetworkAccessChecks",
]
WATCH: Final = """
globalThis.longTasks = [];
new PerformanceObserver((list) => globalThis.longTasks.push(...list.getEntries())).observe({ type: "longtask" });
"""
COUNT_FRAMES: Final = """() => {
  globalThis.frames60 = { began: performance.now(), count: 0 };
  const count = () => {
    globalThis.frames60.count += 1;
    requestAnimationFrame(count);
  };
  requestAnimationFrame(count);
}"""
FRAMES_A_SECOND: Final = "() => (frames60.count * 1000) / (performance.now() - frames60.began)"


def open_page(browser: Browser, port: int, checkout: Path) -> Page:
    """The page of a checkout, on the one gateway."""
    page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})

    def serve(route: Route) -> None:
        name = route.request.url.partition("?")[0].partition("/console/")[2] or "index.html"
        file = checkout / "console" / name
        if name.startswith("client/") and not file.exists():
            file = checkout / "clients" / "js" / "lib" / name.removeprefix("client/")
        route.fulfill(path=file, content_type=mimetypes.guess_type(name)[0])

    address = f"http://127.0.0.1:{port}/"
    page.route(lambda url: url == address or url.startswith(f"{address}console/"), serve)
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_function("() => document.querySelectorAll('.level[data-empty=false]').length > 4")
    return page


class Layouts:
    """How often a page was laid out until now: on a machine that others use it is drawn less often than it asks for."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable")

    def count(self) -> float:
        """Since it was opened."""
        told = {each["name"]: each["value"] for each in self._session.send("Performance.getMetrics")["metrics"]}
        return float(told["LayoutCount"])


class Meter:
    """Chromium's own account of its processes."""

    def __init__(self, browser: Browser) -> None:
        self._session: CDPSession = browser.new_browser_cdp_session()

    def seconds(self) -> dict[int, tuple[str, float]]:
        """Kind and CPU seconds of each process, by its id."""
        told = self._session.send("SystemInfo.getProcessInfo")["processInfo"]
        return {each["id"]: (each["type"], machine.cpu_seconds(each["id"])) for each in told}

    def shares(self, wait: Callable[[], None]) -> tuple[float, float]:
        """Percent of a core that renderers and the others take meanwhile."""
        before, began = self.seconds(), time.monotonic()
        wait()
        after, passed = self.seconds(), time.monotonic() - began
        took: dict[str, float] = defaultdict(float)
        for pid, (kind, seconds) in after.items():
            took["page" if kind == "renderer" else "others"] += seconds - before.get(pid, (kind, 0.0))[1]
        return took["page"] / passed * 100, took["others"] / passed * 100


def measure(browser: Browser, port: int, checkout: Path, view: str, seconds: float) -> dict[str, float]:
    """One turn."""
    page = open_page(browser, port, checkout)
    page.locator(f"#intervals input[value='{VIEWS[view]}']").check(force=True)
    page.wait_for_timeout(SETTLE_SECONDS * 1000)
    meter = Meter(browser)
    page.evaluate("() => { globalThis.longTasks = []; }")
    laid_out = Layouts(page)
    before = laid_out.count()
    alone = meter.shares(lambda: page.wait_for_timeout(seconds * 1000))
    drawn = (laid_out.count() - before) / seconds
    long_tasks: int = page.evaluate("() => globalThis.longTasks.length")
    page.evaluate(COUNT_FRAMES)
    counted = meter.shares(lambda: page.wait_for_timeout(seconds * 1000))
    frames: float = page.evaluate(FRAMES_A_SECOND)
    page.close()
    return {
        "page, % of a core": alone[0],
        "others, % of a core": alone[1],
        "page, every frame asked for": counted[0],
        "others, every frame asked for": counted[1],
        "frames/s": frames,
        "of them laid out, left alone": drawn,
        "tasks over 50 ms": long_tasks,
    }


def run(checkouts: list[Path], seconds: float, rounds: int) -> None:
    executable = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), None)
    if executable is None:
        raise BenchError("Chromium is missing")
    cluster = EmbeddedCluster(TOPICS)
    variables = {"KAFKA_BROKERS": cluster.bootstrap, "KAFKA_TOPIC": TOPICS[0], "KAFKA_ORDER_TOPIC": TOPICS[1]}
    variables |= {"GATEWAY_DEMO_EXCHANGE": "false", "GATEWAY_KAFKA_STATE_TOPIC": ""}
    arguments = ["--brokers", cluster.bootstrap, "--rate", str(RATE), "--until-stdin-closes"]
    told: dict[tuple[str, Path], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (
        gateway(variables, "conf/demo.yaml") as served,
        subprocess.Popen(python("-m", "exchange", *arguments), stdin=subprocess.PIPE, cwd=ROOT) as traders,
        sync_playwright() as playwright,
    ):
        served.wait_ready()
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        for _ in range(rounds):
            for view in VIEWS:
                for checkout in checkouts:
                    for name, value in measure(browser, served.port, checkout, view, seconds).items():
                        told[view, checkout][name].append(value)
        browser.close()
        end(traders)
    print("\n".join(machine.describe()))
    print(
        f"{RATE} events/s, {WINDOW[0]} by {WINDOW[1]}, medians of {rounds} turns of {seconds:g} s; target: < {TARGET:g} %"
    )
    for (view, checkout), figures in told.items():
        print(f"{view}, {checkout.name}")
        for name, values in figures.items():
            print(f"  {name:32} {statistics.median(values):7.1f}   ({min(values):.1f} to {max(values):.1f})")


def main() -> None:
    """The figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.page")
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="others, whose pages take turns")
    parser.add_argument("--seconds", type=float, default=30.0, help="that are measured a turn (default 30)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken (default 3)")
    options = parser.parse_args()
    interruptible()
    run([ROOT, *(each.resolve() for each in options.checkouts)], options.seconds, options.rounds)


if __name__ == "__main__":
    main()
