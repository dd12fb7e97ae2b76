"""Chat templates: text from a model folder that turns a prompt into what the model was trained on.

Templates are rendered in a process of their own (`chat_worker`) with limits on time, memory and
length, because Jinja's sandbox knows none of them. The process is started with the tokenizer, works
for as long as it behaves, and is started again where it had to be ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from cert.core.errors import InvalidInput, ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEMPLATE_CHARS = 2**20
MAX_RENDERED_CHARS = 4_000_000
MAX_CPU_S = 1.5
MAX_WALL_S = 4.0
MAX_MEMORY_BYTES = 512 * 2**20

_WORKER = Path(__file__).with_name("chat_worker.py")


class ChatTemplate:
    """A template together with the process that renders it. Safe to use from several threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Start the process; what is wrong with the template is said at the first rendering.

        Args:
            source: The template.
            special_tokens: `bos_token` and others, as variables of the template.

        Raises:
            ModelRefusedError: The template is too long.
        """
        if len(source) > MAX_TEMPLATE_CHARS:
            message = (
                f"the chat template has {len(source)} characters; {MAX_TEMPLATE_CHARS} are read"
            )
            raise ModelRefusedError(message)
        self._source = source
        self._variables = {**special_tokens, "tools": None, "documents": None}
        self._lock = threading.Lock()
        self._worker: _Worker | None = _Worker(source)

    def render(self, prompt: str) -> str:
        """Make a conversation of one user message and end it where the answer begins.

        Equals transformers' `apply_chat_template([{"role": "user", "content": prompt}],
        add_generation_prompt=True, tokenize=False)`.

        Raises:
            InvalidInput: The template says that it does not take this prompt.
            ModelRefusedError: The template is wrong, or exceeds a limit.
        """
        request: dict[str, object] = {
            **self._variables,
            "messages": [{"role": "user", "content": prompt}],
            "add_generation_prompt": True,
        }
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self._source)
            reply = self._worker.ask(request)
            if "error" in reply:
                self._worker.stop()
                self._worker = None
        if "refused" in reply:
            message = f"the chat template does not take this prompt: {reply['refused']}"
            raise InvalidInput(message)
        if "error" in reply:
            message = f"the model's chat template is not usable: {reply['error']}"
            raise ModelRefusedError(message, hint="run without it: --chat never")
        return reply["text"]


class _Worker:
    """One process. Every exchange ends within `MAX_WALL_S`."""

    def __init__(self, source: str) -> None:
        # The worker finds Jinja where this process does, and inherits nothing else: no secrets.
        paths = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-P", "-S", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": paths, "PYTHONUTF8": "1", **zone},
            cwd="/",
        )
        self.stop = weakref.finalize(self, _end, self._process)
        setup = {
            "template": source,
            "memory_bytes": MAX_MEMORY_BYTES,
            "seconds": MAX_CPU_S,
            "max_chars": MAX_RENDERED_CHARS,
        }
        self._unsaid: dict[str, object] | None = setup

    def ask(self, request: dict[str, object]) -> dict[str, str]:
        """Exchange one line for another; `{"error": ...}` where the process does not answer."""
        watchdog = threading.Timer(MAX_WALL_S, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            if self._unsaid is not None:
                failure = self._exchange(self._unsaid)
                if failure:
                    return failure
                self._unsaid = None
            return self._exchange(request)
        except (OSError, ValueError):
            return {"error": self._end_reason()}
        finally:
            watchdog.cancel()

    def _end_reason(self) -> str:
        code = self._process.wait()
        if code in {-signal.SIGPROF, -signal.SIGKILL}:
            return f"it took longer than {MAX_CPU_S:g} s"
        return f"the process that renders it ended with {code}"

    def _exchange(self, document: dict[str, object]) -> dict[str, str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return {"error": "its process has no pipes"}
        stdin.write(json.dumps(document).encode() + b"\n")
        stdin.flush()
        reply: dict[str, str] = json.loads(stdout.readline())
        return reply


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with process:
        pass
