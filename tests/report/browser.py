"""A headless Chromium, spoken to through a pipe: pages, keys, screenshots."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# The browser reads commands from descriptor 3 and answers on 4.
_START = "import os,sys; a=sys.argv; os.dup2(int(a[1]),3); os.dup2(int(a[2]),4); \
os.execv(a[3], a[3:])"
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_CODES = {"Tab": 9, "Enter": 13, "Escape": 27}
LIMIT = 60  # seconds; far above what anything takes


class Browser:
    """One browser; `open` gives a page."""

    def __init__(self, profile: Path):
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        # Clear of 3 and 4, which the child puts them on.
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs, answers)]
        flags = [*_QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, given), str(CHROMIUM), *flags],
            pass_fds=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs, answers, *given):
            os.close(fd)
        os.set_blocking(self._in, False)
        self._number, self._read = 0, b""

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Sends a command and returns its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method}
        message |= {"params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            while b"\0" in self._read:
                text, _, self._read = self._read.partition(b"\0")
                answer = json.loads(text)
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return answer["result"]
            try:
                self._read += os.read(self._in, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
        raise TimeoutError(f"{method}: no answer in {LIMIT} s")

    def open(self, path: Path, *, width: int = 1300, height: int = 900) -> "Page":
        """Opens a file and waits until its script has run."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, session["sessionId"])
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 640,
        )
        page.call("Page.navigate", url=path.as_uri())
        page.wait("document.body && document.body.dataset.ready !== undefined")
        return page

    def close(self) -> None:
        """Ends the browser."""
        self.call("Browser.close")
        self._process.wait(LIMIT)
        os.close(self._in)
        os.close(self._out)


class Page:
    """One open page."""

    def __init__(self, browser: Browser, session: str):
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command to this page."""
        return self._browser.call(method, self._session, **params)

    def run(self, script: str) -> Any:
        """Returns the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, fits: Callable[[Any], bool] = bool) -> Any:
        """Returns the value of an expression as soon as it fits."""
        end = time.monotonic() + LIMIT
        while not fits(value := self.run(script)) and time.monotonic() < end:
            time.sleep(0.02)
        if fits(value):
            return value
        raise TimeoutError(f"{script}: still {value!r} after {LIMIT} s")

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other, as a keyboard does."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            options: dict[str, Any] = {"key": key}
            if key in _CODES:
                options["windowsVirtualKeyCode"] = _CODES[key]
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **options)
            self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def screenshot(self, path: Path) -> None:
        """Writes what is seen as a PNG."""
        found = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))
