"""A real rsyslog takes records by TLS, and reads them as what they are; what it has not read is not confirmed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from narthex.telemetry.audit.exports.sink import SinkError, SinkSpec
from narthex.telemetry.audit.exports.syslog import SyslogSink
from tests.counterparts.ports import Port
from tests.e2e.harness import wait_for
from tests.telemetry.audit.exports.receivers import make_certificate
from tests.telemetry.audit.test_formats import RECORD

pytestmark = [pytest.mark.e2e, pytest.mark.needs("rsyslogd")]

CONFIG = """
global(workDirectory="{folder}" maxMessageSize="64k" DefaultNetstreamDriver="gtls"
  DefaultNetstreamDriverCAFile="{cert}" DefaultNetstreamDriverCertFile="{cert}" DefaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="fields" type="string"
  string="%pri% %timestamp:::date-rfc3339% %app-name% %msgid% %structured-data% %msg%\\n")
action(type="omfile" file="{folder}/messages" template="fields")
"""


class Rsyslog:
    def __init__(self, folder: Path) -> None:
        self.cert, key = make_certificate(folder, "rsyslog")
        self.messages = folder / "messages"
        self._held = Port()
        self.port = self._held.number
        config = folder / "rsyslog.conf"
        config.write_text(CONFIG.format(folder=folder, cert=self.cert, key=key, port=self.port))
        program = shutil.which("rsyslogd") or ""
        self.process = subprocess.Popen([program, "-n", "-iNONE", "-f", str(config)])

    def lines(self) -> list[str]:
        """Those that are there as a whole."""
        text = self.messages.read_text() if self.messages.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    folder = tmp_path / "rsyslog"
    folder.mkdir()
    one = Rsyslog(folder)
    try:
        yield one
    finally:
        one.process.terminate()
        one.process.wait(60)


def send(sink: SyslogSink, count: int) -> bool:
    try:
        sink.send([{**RECORD, "id": f"r{number}"} for number in range(count)])
        sink.confirm()
    except SinkError:
        sink.close()
        return False
    return True


@pytest.mark.parametrize("form", ["jsonl", "cef", "ocsf"])
def test_rsyslog_reads_what_is_sent(rsyslog: Rsyslog, form: str) -> None:
    spec = SinkSpec("siem", f"syslog+tls://127.0.0.1:{rsyslog.port}", form, ca=rsyslog.cert)  # type: ignore[arg-type]
    sink = SyslogSink(spec)
    wait_for(lambda: send(sink, 1_000))
    assert send(sink, 1_000)
    wait_for(lambda: len(rsyslog.lines()) >= 2_000)
    pri, time, app, msgid, origin = rsyslog.lines()[-1].split(" ", 4)
    assert (pri, time, app, msgid) == ("109", "2023-11-14T22:13:20.250000Z", "narthex", "call")
    assert origin.startswith('[origin software="Narthex"')
    text = rsyslog.lines()[-1].partition("] ")[2].strip()
    if form == "cef":
        assert text.startswith("CEF:0|Narthex|Narthex|") and "externalId=r999" in text
    else:
        found = json.loads(text)
        assert (found["id"] if form == "jsonl" else found["metadata"]["uid"]) == "r999"


def test_what_waits_is_sent_once_rsyslog_is_there(rsyslog: Rsyslog) -> None:
    sink = SyslogSink(SinkSpec("siem", f"syslog+tls://127.0.0.1:{rsyslog.port}", ca=rsyslog.cert))
    wait_for(lambda: send(sink, 1))
    rsyslog.process.kill()
    rsyslog.process.wait(60)
    assert not send(sink, 1)
