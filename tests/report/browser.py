"""Chromium without a screen, as Debian has it, that notes every request and every message of a page."""

import contextlib
import json
import shutil
import tempfile

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="nfslock-chromium-")
        options = Options()
        for flag in (*FLAGS, f"--user-data-dir={self.profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.binary_location = shutil.which("chromium")
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(120)
        self.driver.set_script_timeout(120)

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, path):
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())

    def look(self, width=1280, height=900, scheme="light", media=""):
        """The size of the window, and what the page is told of the reader's wishes."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.command("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    @contextlib.contextmanager
    def fresh_tab(self):
        """A tab of its own, whose count of the processor's time begins at nothing."""
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.command("Performance.enable", timeDomain="threadTicks")
        try:
            yield
        finally:
            self.driver.close()
            self.driver.switch_to.window(first)

    def processor_ms(self):
        """What the page of a fresh tab has had of the processor. Other programs do not lengthen it."""
        metrics = {row["name"]: row["value"] for row in self.command("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"] * 1000

    def messages(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """The addresses that the page asked for, its own included."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path):
        self.driver.save_screenshot(str(path))
