"""The collection with a stand-in for the program nfs_lock_info, so that hosts can say what the tests want."""

import json
import pathlib
import sys

import hostvars
import pytest
from controller import Controller

# It returns what lies in its host's folder.
STAND_IN = f"""#!{sys.executable}
# WANT_JSON
import pathlib, sys
print(pathlib.Path(sys.argv[0]).parents[1].joinpath("result.json").read_text(encoding="utf-8"))
"""


class Fleet(Controller):
    """Hosts that return what the tests want, and the playbook report run on them."""

    def __init__(self, folder, results, measured):
        super().__init__(folder, {"nfs_lock_info": STAND_IN})
        self.reports = folder / "reports"
        self.results = results
        self.measured = measured  # hosts that get metrics
        self.write()

    def write(self):
        hosts = {}
        for name, result in self.results.items():
            home = self.home(name)
            (home / "textfile").mkdir(exist_ok=True)
            (home / "result.json").write_text(json.dumps(result), encoding="utf-8")
            hosts[name] = self.variables(name, reached=result is not hostvars.UNREACHABLE)
            if name in self.measured:
                hosts[name]["nfs_lock_report_textfile_dir"] = str(home / "textfile")
        self.know(hosts)

    def run(self, *arguments, returncode=0):
        """What the recap counts of each host."""
        done = self.play("report", {"nfs_lock_report_dir": str(self.reports), "nfs_lock_hosts": "compute"}, *arguments)
        assert done.returncode == returncode, done.stdout + done.stderr
        self.output = done.stdout + done.stderr
        recap = {}
        for line in done.stdout.split("PLAY RECAP")[1].splitlines()[1:]:
            if " : " in line:
                host, counts = line.split(" : ", 1)
                recap[host.strip()] = {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        return recap

    def report(self, form):
        return (self.reports / f"nfs-lock-report.{form}").read_text(encoding="utf-8")

    def textfile(self, host):
        return self.home(host) / "textfile" / "nfs_lock.prom"


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write the golden files anew")
    parser.addoption("--screenshots", metavar="DIR", help="write the README's pictures there")


@pytest.fixture
def golden(request):
    """Compares a text with the file of that name in golden/."""

    def compare(name, text):
        path = pathlib.Path(__file__).with_name("golden") / name
        if request.config.getoption("--update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{name}: if it is meant to differ: tests/report/run.sh --update"

    return compare


@pytest.fixture
def fleet(tmp_path):
    return lambda results, measured: Fleet(tmp_path, results, measured)
