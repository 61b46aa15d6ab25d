import ast
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

import steelshift
from steelshift import errors
from steelshift.data.decode import Unreadable
from steelshift.messages import _CATALOGUE, language, say

SOURCE = Path(steelshift.__file__).parent
TAKES_KEY = {
    "say",
    "Unreadable",
    "SteelshiftError",
    "Refusal",
    *(each.__name__ for each in errors.SteelshiftError.__subclasses__()),
}
TAKES_KEY -= {"Interrupted"}


def placeholders(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def calls():
    """(place, key, fields; None where they are not written out) of every sentence that the source asks for."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", None) in TAKES_KEY:
                given = {keyword.arg for keyword in node.keywords}
                asked = node.args[0]
                for part in (asked.body, asked.orelse) if isinstance(asked, ast.IfExp) else (asked,):
                    if isinstance(part, ast.Constant):
                        yield f"{path.name}:{node.lineno}", part.value, None if None in given else given


def test_every_sentence_that_is_asked_for_exists_and_gets_its_fields():
    found = list(calls())
    assert len(found) > 50
    for place, key, given in found:
        assert key in _CATALOGUE, (place, key)
        if given is not None:
            assert placeholders(_CATALOGUE[key][0]) <= given, (place, key)


@pytest.mark.parametrize("key", _CATALOGUE)
def test_both_languages_say_the_same(key):
    english, chinese = _CATALOGUE[key]
    assert placeholders(english) == placeholders(chinese)
    assert "" not in placeholders(english) and not any(name.isdigit() for name in placeholders(english))
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese)
    assert english.isascii()


def ranges():
    """Every range that the source writes out, as an argument `range` or as the words of a check."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = [keyword.value for keyword in getattr(node, "keywords", []) if keyword.arg == "range"]
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("hold", "_check"):
                words += node.args[-1:]
            yield from (part.value for part in words if isinstance(part, ast.Constant))


def test_ranges_are_said_in_chinese_too(monkeypatch):
    monkeypatch.setenv("STEELSHIFT_LANG", "zh")
    found = {words: say("option_range", key="k", value=0, range=words) for words in ranges()}
    assert len(found) > 10
    for words, said in found.items():
        rest = said.replace("fp32", "").replace("int8", "").replace("auto", "").replace("equal", "")
        assert not re.search("[A-Za-z]{2}", rest), (words, said)
    assert "大于 0，至多 1" in say("option_range", key="k", value=0, range="above 0, at most 1")
    assert "介于 0 与 1 之间" in say("option_range", key="k", value=0, range="between 0 and 1")
    assert "0.1 到 50" in say("option_range", key="k", value=0, range="0.1 to 50")
    assert "键值映射" in say("wrong_value", key="k", value=0, wanted="a map of keys")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, "en"),
        ({"STEELSHIFT_LANG": "zh"}, "zh"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LC_ALL": "zh_TW", "LANG": "en_US"}, "zh"),
        ({"LC_MESSAGES": "de_DE", "LANG": "zh_CN"}, "en"),
        ({"STEELSHIFT_LANG": "en", "LC_ALL": "zh_CN"}, "en"),
        ({"STEELSHIFT_LANG": "", "LANG": "zh_CN"}, "zh"),
    ],
)
def test_the_language_follows_the_environment(monkeypatch, variables, wanted):
    for name in ("STEELSHIFT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language() == wanted
    assert say("empty_file") == _CATALOGUE["empty_file"][wanted == "zh"]


@pytest.mark.parametrize("kind", ["zh", "en"])
def test_errors_speak_the_users_language(monkeypatch, kind):
    monkeypatch.setenv("STEELSHIFT_LANG", kind)
    for error in (
        errors.UsageError("unknown_method", name="x", known="a, b"),
        Unreadable("too_small", width=1, height=9),
    ):
        assert ("没有" in str(error) or "图像" in str(error)) == (kind == "zh")


def test_exit_codes_are_those_of_the_document():
    codes = {
        errors.RunFailed: 1,
        errors.UsageError: 2,
        errors.DataError: 3,
        errors.ArtifactRefused: 4,
        errors.ParityFailed: 5,
        errors.Found: 6,
    }
    kinds = set(errors.SteelshiftError.__subclasses__())
    assert kinds == {*codes, errors.Interrupted}
    for kind, code in codes.items():
        error = kind("no_device", name="tpu")
        assert error.exit_code == code and error.key == "no_device" and error.fields == {"name": "tpu"}
        assert "tpu" in str(error)
    for number, code in ((2, 130), (15, 143)):
        assert errors.Interrupted(number, 7, "runs/a").exit_code == code
        assert "runs/a" in str(errors.Interrupted(number, 7, "runs/a"))


@pytest.mark.parametrize(
    "module",
    [
        "steelshift",
        "steelshift.messages",
        "steelshift.errors",
        "steelshift.files",
        "steelshift.data.decode",
        "steelshift.data.table",
        "steelshift.data.splits",
        "steelshift.data.cache",
        "steelshift.inspection.rows",
        "steelshift.inspection.exported",
    ],
)
def test_light_at_the_door(module):
    heavy = "{'torch', 'torchvision', 'timm', 'sklearn', 'matplotlib'} & sys.modules.keys()"
    code = f"import sys, {module}; sys.exit(', '.join(sorted({heavy})) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
