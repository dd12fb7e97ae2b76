from __future__ import annotations

import io
import json
import logging
import os
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cert.observability.correlation import correlation_id_context
from cert.observability.formatters import MAX_CHARS, RESERVED_FIELDS
from cert.observability.logging import configure_logging, reset_logging, safe_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "hf_" + "A1b2C3d4" * 4

log = logging.getLogger("cert.trajectory.api")


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    reset_logging()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=_refuse) for line in stream.getvalue().splitlines()]


def _refuse(name: str) -> object:
    raise AssertionError(f"{name} is no JSON")


def test_the_specifications_record(stream: io.StringIO) -> None:
    configure_logging(level="INFO", format="json", stream=stream)
    with correlation_id_context("req-123"):
        log.info("Processing request", extra={"prompt_length": 100, "model": "Qwen/Qwen2.5-7B"})
    (fields,) = lines(stream)
    assert list(fields) == [
        "timestamp", "level", "logger", "message", "correlation_id", "prompt_length", "model",
    ]  # fmt: skip
    timestamp = fields.pop("timestamp")
    assert fields == {
        "level": "INFO",
        "logger": "cert.trajectory.api",
        "message": "Processing request",
        "correlation_id": "req-123",
        "prompt_length": 100,
        "model": "Qwen/Qwen2.5-7B",
    }
    assert isinstance(timestamp, str)


@pytest.mark.parametrize(
    ("created", "written"),
    [
        (1761474645.123, "2025-10-26T10:30:45.123Z"),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1761474645.9999, "2025-10-26T10:30:45.999Z"),
    ],
)
@pytest.mark.parametrize("format_", ["json", "human"])
def test_the_timestamp(stream: io.StringIO, created: float, written: str, format_: str) -> None:
    configure_logging(format=format_, stream=stream)
    record = log.makeRecord(log.name, logging.INFO, "f", 1, "m", (), None)
    record.created = created
    log.handle(record)
    assert written in stream.getvalue()


def test_without_a_correlation_id_the_field_is_absent(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    log.info("m")
    assert list(lines(stream)[0]) == ["timestamp", "level", "logger", "message"]


@pytest.mark.parametrize("name", sorted(RESERVED_FIELDS))
def test_no_name_of_a_field_clashes(stream: io.StringIO, name: str) -> None:
    configure_logging(stream=stream)
    log.info("the message", extra=safe_extra(**{name: "mine"}))
    (fields,) = lines(stream)
    assert fields[f"extra_{name}"] == "mine"
    assert fields["message"] == "the message"
    assert fields["logger"] == "cert.trajectory.api"


@pytest.mark.parametrize("name", ["timestamp", "level", "logger", "correlation_id"])
def test_a_plain_extra_cannot_replace_an_own_field(stream: io.StringIO, name: str) -> None:
    configure_logging(stream=stream)
    with correlation_id_context("real"):
        log.info("m", extra={name: "forged"})
    (fields,) = lines(stream)
    assert fields[name] != "forged"
    assert fields[f"extra_{name}"] == "forged"


def test_values_of_all_kinds_become_json(stream: io.StringIO) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    deep: object = "bottom"
    for _ in range(20):
        deep = [deep]
    cycle: list[object] = []
    cycle.append(cycle)
    configure_logging(stream=stream)
    log.info(
        "m",
        extra={
            "nan": float("nan"),
            "inf": float("inf"),
            "minus": -float("inf"),
            "huge": 10**5000,
            "truth": True,
            "none": None,
            "bytes_": b"\xff",
            "broken": Broken(),
            "many": list(range(1000)),
            "map_": {i: i for i in range(100)},
            "deep": deep,
            "cycle": cycle,
            "set_": {1},
            "surrogate": "a\ud800b",
            "error": ValueError("x"),
        },
    )
    (fields,) = lines(stream)
    assert fields["nan"] == "NaN"
    assert (fields["inf"], fields["minus"]) == ("Infinity", "-Infinity")
    assert fields["huge"] == "(huge integer)"
    assert fields["truth"] is True
    assert fields["none"] is None
    assert fields["bytes_"] == "b'\\xff'"
    assert fields["broken"] == "(unprintable Broken)"
    assert fields["many"] == [*range(64), "... 936 more"]
    assert isinstance(fields["map_"], dict)
    assert fields["map_"]["..."] == "36 more"
    assert "bottom" not in json.dumps(fields["deep"])
    assert "..." in json.dumps(fields["cycle"])
    assert fields["set_"] == [1]
    assert fields["surrogate"] == "a?b"
    assert fields["error"] == "x"


@pytest.mark.parametrize("format_", ["json", "human"])
def test_a_long_text_is_cut_in_the_middle(stream: io.StringIO, format_: str) -> None:
    configure_logging(format=format_, stream=stream)
    log.info("A%sZ", "x" * 100_000)
    text = stream.getvalue()
    assert len(text) < MAX_CHARS + 300
    assert f"({100_002 - MAX_CHARS} characters left out)" in text
    assert "A" in text
    assert "Z" in text


@pytest.mark.parametrize("format_", ["json", "human"])
def test_secrets_are_kept_out_of_every_part(stream: io.StringIO, format_: str) -> None:
    configure_logging(format=format_, stream=stream)
    log.info("using %s", SECRET, extra={"a": SECRET, "b": {"c": [SECRET]}, "api_key": "plain"})
    error = RuntimeError(f"https://ann:pw@host refused {SECRET}")
    log.error("failed", exc_info=error, extra={SECRET: 1})
    text = stream.getvalue()
    assert SECRET not in text
    assert "plain" not in text
    assert "ann:pw" not in text
    assert text.count("[redacted]") >= 6


def test_the_record_itself_is_left_alone(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    handler = Keep()
    logging.getLogger("cert").addHandler(handler)
    try:
        log.info("using %s", SECRET)
    finally:
        logging.getLogger("cert").removeHandler(handler)
    assert (seen[0].msg, seen[0].args) == ("using %s", (SECRET,))


FORGED = (
    'x\n{"timestamp": "2025-10-26T10:30:45.123Z", "level": "INFO"}\r\x1b[2J\x9b\u202e\u2028\x85'
)


@pytest.mark.parametrize("format_", ["json", "human"])
def test_no_line_can_be_forged(stream: io.StringIO, format_: str) -> None:
    configure_logging(format=format_, stream=stream)
    name = logging.getLogger("cert." + FORGED)
    name.warning(FORGED, extra={"field": FORGED, "list_": [FORGED], FORGED: 1})
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert text.endswith("\n")
    assert all(c.isprintable() for c in text[:-1])


def test_a_traceback_cannot_pass_for_a_record(stream: io.StringIO) -> None:
    configure_logging(format="human", stream=stream)
    log.error("failed", exc_info=ValueError(FORGED), stack_info=True)
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert len(rest) > 3
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


def test_the_human_line(stream: io.StringIO) -> None:
    configure_logging(format="human", stream=stream)
    with correlation_id_context("req-1"):
        log.warning("slow", extra={"took_s": 1.5, "model": "a b", "empty": "", "x": "plain"})
    _, _, rest = stream.getvalue().partition(" ")
    assert rest == (
        'WARNING  cert.trajectory.api [req-1] slow took_s=1.5 model="a b" empty="" x=plain\n'
    )


def test_a_record_of_another_process_has_its_traceback_as_text(stream: io.StringIO) -> None:
    record = logging.makeLogRecord(
        {"name": "cert.x", "levelno": 20, "msg": "m", "exc_text": "A\nB"}
    )
    for format_, shown in (("json", '"exc_info": "A\\nB"'), ("human", "    | B\n")):
        configure_logging(format=format_, stream=stream)
        logging.getLogger("cert.x").handle(record)
        assert shown in stream.getvalue()


@pytest.mark.parametrize("format_", ["json", "human"])
def test_wrong_arguments_lose_no_line(stream: io.StringIO, format_: str) -> None:
    configure_logging(format=format_, stream=stream)
    log.info("%d items", "three")
    assert "%d items (arguments do not fit: TypeError)" in stream.getvalue()


def test_a_map_as_message_has_its_fields_beside_it(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    log.info({"event": "loaded", "level": "x", "password": "p"})
    (fields,) = lines(stream)
    assert fields["event"] == "loaded"
    assert (fields["level"], fields["extra_level"]) == ("INFO", "x")
    assert fields["password"] == "[redacted]"  # noqa: S105 - the mask


def test_levels_and_both_loggers(stream: io.StringIO) -> None:
    configure_logging(level="warning", stream=stream)
    log.info("no")
    logging.getLogger("cert_cli.app").error("yes")
    logging.getLogger("elsewhere").error("not ours")
    assert [fields["message"] for fields in lines(stream)] == ["yes"]


def test_configuring_again_replaces_and_the_root_stays_as_it_is(stream: io.StringIO) -> None:
    handlers = list(logging.getLogger().handlers)
    first = io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=stream)
    log.info("once")
    assert first.getvalue() == ""
    assert len(lines(stream)) == 1
    assert logging.getLogger().handlers == handlers
    reset_logging()
    log.warning("to the root again")
    assert len(lines(stream)) == 1
    assert logging.getLogger("cert").propagate
    assert logging.getLogger("cert").handlers == []


def test_the_default_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    log.info("m")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["message"] == "m"
    assert captured.err == ""


@pytest.mark.parametrize("output", ["file", "both"])
def test_files_are_private_appended_to_and_flushed(
    tmp_path: Path, stream: io.StringIO, output: str
) -> None:
    file = tmp_path / "cert.log"
    for n in range(2):
        configure_logging(output=output, log_file=file, stream=stream)
        log.info("line %d é", n)
        assert file.read_text("utf-8").count("\n") == n + 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(lines(stream)) == (2 if output == "both" else 0)


def test_files_are_rotated(tmp_path: Path) -> None:
    file = tmp_path / "cert.log"
    configure_logging(output="file", log_file=str(file), max_bytes=400, backup_count=2)
    for n in range(40):
        log.info("line %02d", n)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["cert.log", "cert.log.1", "cert.log.2"]
    kept = "".join((tmp_path / name).read_text() for name in reversed(names))
    found = [json.loads(line)["message"] for line in kept.splitlines()]
    assert found == [f"line {n:02d}" for n in range(40 - len(found), 40)]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in tmp_path.iterdir())
    assert all(p.stat().st_size <= 400 for p in tmp_path.iterdir())


def test_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    configure_logging(output="file", log_file="~/x.log")
    log.info("m")
    assert (tmp_path / "x.log").exists()


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "cert.log"
    configure_logging(output="file", log_file=file)

    def work(n: int) -> None:
        with correlation_id_context(f"req-{n}"):
            for _ in range(50):
                log.info("m", extra={"worker": n})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == 400
    assert all(fields["correlation_id"] == f"req-{fields['worker']}" for fields in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "LOUD"}, "level is one of"),
        ({"level": "NOTSET"}, "level is one of"),
        ({"level": 20}, "level is one of"),
        ({"format": "xml"}, "format is one of"),
        ({"output": "syslog"}, "output is one of"),
        ({"output": "file"}, "needs log_file"),
        ({"output": "both", "log_file": ""}, "needs log_file"),
    ],
)
def test_wrong_arguments_change_nothing(
    stream: io.StringIO, arguments: dict[str, object], message: str
) -> None:
    configure_logging(stream=stream)
    with pytest.raises(ValueError, match=message):
        configure_logging(**arguments)  # type: ignore[arg-type]
    log.info("still here")
    assert len(lines(stream)) == 1


def test_links_pipes_devices_and_folders_are_refused(tmp_path: Path, stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", ".", "missing/x.log"):
        with pytest.raises(OSError, match=r"."):
            configure_logging(output="file", log_file=tmp_path / name)
    with pytest.raises(OSError, match="is no regular file"):
        configure_logging(output="file", log_file="/dev/null")
    log.info("still here")
    assert len(lines(stream)) == 1
    assert (tmp_path / "target").read_text() == ""


def test_a_log_that_cannot_be_written_is_said_once_and_raises_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        configure_logging(stream=full)
        for _ in range(3):
            log.info("m")
        reset_logging()
        # What is left in the buffer can't be written either.
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert capsys.readouterr().err == (
        "cert: cannot write to the log stream: No space left on device; log lines are lost\n"
    )


def test_a_closed_stream_and_a_closed_stderr_are_borne(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream.close()
    configure_logging(stream=stream)
    log.info("m")
    assert capsys.readouterr().err == (
        "cert: cannot write to the log stream: ValueError; log lines are lost\n"
    )
    configure_logging(stream=stream)
    monkeypatch.setattr(sys, "stderr", None)
    log.info("m")


def test_text_that_a_stream_cannot_encode_does_not_occur(tmp_path: Path) -> None:
    with (tmp_path / "ascii").open("w", encoding="ascii") as ascii_stream:
        configure_logging(stream=ascii_stream)
        log.info("日本 é 🙂")
    assert json.loads((tmp_path / "ascii").read_text())["message"] == "日本 é 🙂"
