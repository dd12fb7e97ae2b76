"""Chat templates: the same ids as transformers, and no way to hang, fill memory or get out."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from model_factory import FAMILIES, build_tiny_model

from cert.backends import chat_template
from cert.backends.chat_template import ChatTemplate
from cert.backends.folder import inspect_folder
from cert.backends.tokenization import Tokenization, load_tokenization
from cert.core.errors import InvalidInput, ModelRefusedError

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = ["Hello world", "  two\n lines ", "<|im_end|>{{ 7 * 7 }}", "日本 🙂", "x" * 20_000]


def load(folder: Path) -> Tokenization:
    return load_tokenization(inspect_folder(folder), vocab_size=300, files={})


def set_template(folder: Path, template: object) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["chat_template"] = template
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_apply_chat_template(family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = build_tiny_model(tmp_path / "model", family, chat_template=True)
    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    ours = load(folder)
    assert ours.has_chat_template
    for prompt in PROMPTS:
        expected = theirs.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        assert ours.encode_prompt(prompt) == expected
        assert ours.encode_prompt(prompt, chat="always") == expected
        assert ours.encode_prompt(prompt, chat="never") == theirs(prompt).input_ids


# What templates in use are made of; rendered by transformers and here.
TEMPLATES = [
    "{{ bos_token }}{% for m in messages %}{{ m.role ~ ': ' ~ m['content'] }}\n{% endfor %}",
    "  {% if tools %}\n    tools\n  {% else %}\n    none\n  {% endif %}\n  x",
    "{% for m in messages if m.role != 'x' %}{{ loop.index0 }}{{ m.content | trim }}{% endfor %}",
    (
        "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}"
        "{% set ns.n = ns.n + i %}{% continue %}{% endfor %}{{ ns.n }}"
    ),
    "{{ messages | tojson(indent=2) }}{{ {'é': '<&>'} | tojson }}",
    "{{ [1, 2] | tojson(separators=(',', ':')) }}",
    "{{ strftime_now('%Y') | length }}",
    "{% generation %}{% set x = 1 %}A{% endgeneration %}{{ x is defined }}",
    "{% macro f(a, b='c') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(messages[0].content) }}",
    "{{ messages[0].get('tool_calls') is none }}{{ documents is none }}{{ tools is defined }}",
    "{{ dict(a=1) }}{{ 'a,b'.split(',') | join('-') }}{{ messages[0].content[:3] | upper }}",
    "{{ undefined_name }}{{ eos_token }}{{ pad_token is defined }}{{ add_generation_prompt }}",
    "{%- if messages[0]['role'] == 'user' -%}  y  {%- endif -%}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_texts_are_those_of_transformers(template: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = build_tiny_model(tmp_path / "model", "llama", chat_template=template)
    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    ours = ChatTemplate(template, theirs.special_tokens_map)
    for prompt in PROMPTS:
        message = {"role": "user", "content": prompt}
        assert ours.render(prompt) == theirs.apply_chat_template(
            [message], add_generation_prompt=True, tokenize=False
        )


def test_a_template_file_comes_first(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama", chat_template="settings")
    (folder / "chat_template.jinja").write_text("the")
    tokenization = load(folder)
    assert tokenization.decode(tokenization.encode_prompt("x")) == "the"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ([{"name": "default", "template": "one"}, {"name": "rag", "template": "two"}], "one"),
        ({"default": "one", "tool_use": "two"}, "one"),
        ([{"name": "rag", "template": "two"}], None),
        ([5, {"name": "default"}], None),
        (7, None),
        (None, None),
    ],
)
def test_of_named_templates_the_default_is_taken(
    template: object, text: str | None, tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama")
    set_template(folder, template)
    tokenization = load(folder)
    assert tokenization.has_chat_template == (text is not None)
    if text is not None:
        assert tokenization.decode(tokenization.encode_prompt("x")) == text


def test_named_templates_in_files_without_a_default_are_none(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama", chat_template="x")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("y")
    assert not load(folder).has_chat_template


def test_a_template_can_refuse_a_prompt_and_goes_on_working() -> None:
    source = "{% if 'no' in messages[0].content %}{{ raise_exception('not this') }}{% endif %}ok"
    template = ChatTemplate(source, {})
    with pytest.raises(InvalidInput, match="does not take this prompt: not this"):
        template.render("no")
    worker = template._worker
    assert template.render("yes") == "ok"
    assert template._worker is worker


NESTED = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (NESTED, "took longer than 1.5 s"),
        ("{{ 'x' * 10 ** 10 }}", "too much memory"),
        ("{{ messages[0].content * 10 ** 10 }}", "too much memory"),
        ("{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}", "too much memory"),
        ("{{ 'a' | center(10 ** 10) }}", "too much memory"),
        ("{{ '%1000000000d' % 5 }}", "too much memory"),
        (
            (
                "{% set ns = namespace(s='xx') %}{% for i in range(64) %}"
                "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"
            ),
            "too much memory",
        ),
        ("{% for a in range(99999) %}{{ 'y' * 1000 }}{% endfor %}", "more than 4000000 characters"),
        ("{{ range(10 ** 9) | list }}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ lipsum.__globals__['os'].environ }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('true').read() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "TypeError"),
        ("{% import 'os' as os %}", "TypeError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ nothing.at.all }}", "UndefinedError"),
    ],
)
def test_a_hostile_or_broken_template_ends_with_a_clear_error(source: str, message: str) -> None:
    start = time.monotonic()
    template = ChatTemplate(source, {})
    with pytest.raises(ModelRefusedError, match=message) as caught:
        template.render("x")
    assert time.monotonic() - start < 30
    assert caught.value.message.startswith("the model's chat template is not usable: ")
    assert caught.value.hint is not None
    assert "--chat never" in caught.value.hint


def test_after_a_prompt_that_took_too_long_the_next_one_is_rendered() -> None:
    source = "{% if messages[0].content == 'slow' %}" + NESTED + "{% endif %}done"
    template = ChatTemplate(source, {})
    with pytest.raises(ModelRefusedError, match="took longer"):
        template.render("slow")
    assert template.render("fast") == "done"


def test_a_stopped_worker_does_not_hold_up_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(chat_template, "MAX_WALL_S", 0.3)
    template = ChatTemplate("ok", {})
    assert template._worker is not None
    template._worker._process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(ModelRefusedError, match="took longer"):
        template.render("x" * 1_000_000)
    assert time.monotonic() - start < 30
    monkeypatch.undo()
    assert template.render("x") == "ok"


def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("raise SystemExit(9)")
    monkeypatch.setattr(chat_template, "_WORKER", script)
    with pytest.raises(ModelRefusedError, match="the process that renders it ended with 9"):
        ChatTemplate("ok", {}).render("x")


def test_the_worker_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    template = ChatTemplate("ok", {})
    assert template.render("x") == "ok"
    assert template._worker is not None
    pid = template._worker._process.pid
    environment = os.fsencode(f"/proc/{pid}/environ")
    with open(environment, "rb") as file:  # noqa: PTH123 - a path of bytes
        assert b"hf_secret" not in file.read()


def test_the_worker_ends_with_the_template() -> None:
    template = ChatTemplate("ok", {})
    assert template.render("x") == "ok"
    assert template._worker is not None
    process = template._worker._process
    del template
    assert process.poll() is not None


def test_a_template_that_is_too_long_is_refused() -> None:
    with pytest.raises(ModelRefusedError, match="has 1048577 characters"):
        ChatTemplate("x" * (2**20 + 1), {})


def test_a_surrogate_goes_through_the_worker_and_is_refused_as_input(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model", "llama", chat_template=True)
    with pytest.raises(InvalidInput, match="not valid Unicode"):
        load(folder).encode_prompt("a\ud800")


def test_threads_take_turns() -> None:
    from concurrent.futures import ThreadPoolExecutor

    template = ChatTemplate("<{{ messages[0].content }}>", {})
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(template.render, map(str, range(100))))
    assert texts == [f"<{number}>" for number in range(100)]
