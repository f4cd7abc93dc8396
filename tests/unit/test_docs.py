"""What can be set, run or requested is written down."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from bridge import cli
from bridge.settings import Pbx, Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BRIDGE = (ROOT / "bridge" / "README.md").read_text(encoding="utf-8")


def setting_keys() -> list[str]:
    keys = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if name == "pbx":
            keys += [f"pbx.{key}" for key in Pbx.model_fields]
        elif isinstance(section, type) and issubclass(section, BaseModel):
            keys += [f"{name}.{key}" for key in section.model_fields]
        else:
            keys.append(name)
    return keys


@pytest.mark.parametrize("key", setting_keys())
def test_every_setting_is_documented(key: str) -> None:
    assert f"`{key}`" in BRIDGE


def test_no_setting_is_documented_that_is_not_there() -> None:
    table = BRIDGE.partition("## Settings")[2].partition("\n## ")[0]
    told = {
        key
        for line in table.splitlines()
        if line.startswith("| `")
        for key in re.findall(r"`([a-z_.]+)`", line.split("|")[1])
    }
    assert told == set(setting_keys())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert re.search(rf"`(ringbridge )?{name}`", table)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_has_words(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None

    def check(command: click.Command) -> None:
        assert command.help, command.name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help or option.show_default, f"{command.name} {option.name}"
        if isinstance(command, click.Group):
            for child in command.commands.values():
                check(child)

    check(command)


def links(path: Path) -> list[str]:
    return re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/README.md")), ROOT / "deploy" / "lab" / "README.md"]
)
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in links(path) if not (path.parent / link).exists()]
    assert not missing


def test_exit_codes_are_documented() -> None:
    for text in (README, BRIDGE, cli.__doc__ or ""):
        assert re.search(r"0 done, 1 something failed", " ".join(text.split()))


def test_every_endpoint_is_in_the_openapi_document(tmp_path: Path) -> None:
    from bridge.api.app import create_app

    app = create_app(Settings(data_dir=tmp_path))
    document = app.test_client().get("/api/v1/openapi.json").get_json()
    told = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for path, methods in document["paths"].items()
        for method in methods
    }
    missing = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/") and rule.endpoint != "static" and "openapi" not in rule.rule
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if (method, re.sub(r"<[^>]*>", "{}", rule.rule)) not in told
    }
    assert not missing
