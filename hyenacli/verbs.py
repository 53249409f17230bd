"""Verbs as commands: each is built, and its settings imported, when it is called.

The arguments and options of a verb are the fields of its settings. The help is plain text: a table would cut
names at 80 columns. Only typer is imported here, so that `hyena --help` stays fast.
"""

import importlib
import inspect
import itertools
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from hyenacli import console, options, settings_file
from hyenacli.distributed import handle_signals, launch, launched
from hyenacli.errors import UsageError

BROKEN_PIPE = 128 + signal.SIGPIPE
# Values that users of other tools give to flags.
_BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")


def _import(address: str) -> Any:
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Verb:
    """A verb, given by the addresses ("module:name") of its settings and of the function that it runs.

    The settings are a frozen dataclass whose fields are `Annotated` with typer parameters; its docstring is
    the help, and ends in a paragraph of examples, a line each. The function is called with one instance; it
    returns the exit code, or None for 0.
    """

    settings: str
    function: str

    @property
    def summary(self) -> str:
        """Return the first sentence of the help."""
        return _paragraphs(_import(self.settings))[0].split(". ")[0].rstrip(".") + "."

    def command(self, name: str) -> Any:
        """Build the command."""
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        settings = _import(self.settings)

        def run(**values: Any) -> None:
            how = {key: values.pop(key) for key in options.RUN_OPTIONS}
            resolved = settings(**values)
            if how["print_config"]:
                typer.echo(settings_file.to_yaml(resolved), nl=False)
                return
            with (
                handle_signals((signal.SIGTERM, signal.SIGHUP), _exit_on_signal),
                _exit_on_closed_stdout(),
                console.session(quiet=how["quiet"], verbose=how["verbose"], log_json=how["log_json"]),
            ):
                # With --nproc-per-node, processes are started that run the function instead.
                if (processes := getattr(resolved, "nproc_per_node", None)) and not launched():
                    raise typer.Exit(launch(processes))
                code = _import(self.function)(resolved)
                sys.stdout.flush()
            raise typer.Exit(code or 0)

        _take_signature(run, settings)
        app.command(name, cls=VerbCommand)(run)
        command: Any = typer.main.get_command(app)
        command.examples = _examples(settings)
        return command


@dataclass(frozen=True)
class Group:
    """Verbs under a common name."""

    summary: str
    verbs: Mapping[str, Verb]

    def command(self, name: str) -> Any:
        """Build the group's command."""
        return VerbGroup(name=name, help=self.summary, panels={"Commands": self.verbs}, rich_markup_mode=None)


class _Commands(Mapping[str, Any]):
    """The commands of a group by name, each built when it is looked up."""

    def __init__(self, verbs: Mapping[str, Verb | Group]) -> None:
        self.verbs, self.built = verbs, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self.built:
            self.built[name] = self.verbs[name].command(name)
        return self.built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.verbs)

    def __len__(self) -> int:
        return len(self.verbs)


class VerbGroup(TyperGroup):
    """Group of verbs, which the help lists by panels."""

    def __init__(self, *, panels: Mapping[str, Mapping[str, Verb | Group]], **extra: Any) -> None:
        """Take verbs by panel of the help and name."""
        super().__init__(**extra)
        self.panels = panels
        self.commands: Any = _Commands(
            {name: verb for panel in panels.values() for name, verb in panel.items()}
        )

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; of a part of a name, as `score`, name the commands that have it."""
        similar = [repr(name) for name in self.commands if args[0] in name]
        if similar and args[0] not in self.commands and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{args[0]}'. Did you mean {', '.join(similar)}?")
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options."""
        return _name_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help and exit with 2."""
        if not args and not ctx.resilient_parsing:  # as it is while a shell completes a word
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then the verbs by panel."""
        _write_options(self, ctx, formatter)
        for title, verbs in self.panels.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.summary) for name, verb in verbs.items()])


class VerbCommand(TyperCommand):
    """Command of a verb, whose flags take no value.

    Attributes:
        examples: command lines.
    """

    examples: Sequence[str] = ()

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the verb does, examples, and where to read on."""
        super().format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                lines = textwrap.wrap(
                    example, formatter.width - 6, break_long_words=False, break_on_hyphens=False
                )
                formatter.write("  " + " \\\n    ".join(lines) + "\n")
        page = ctx.command_path.split()[1]
        formatter.write(f"\nSee also: docs/{page}.md\n")

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the arguments and options."""
        return _name_values(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_options(self, ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            UsageError: a flag is followed by a word such as `true`, which would be taken for an input.
        """
        if not args and not ctx.resilient_parsing and any(parameter.required for parameter in self.params):
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        flags = {name for option in self.params if getattr(option, "is_flag", False) for name in option.opts}
        for flag, word in itertools.pairwise(args):
            if flag in flags and word.lower() in _BOOLEANS and not Path(word).exists():
                remedy = "write the flag alone, or leave it out"
                raise UsageError(f"takes no value, but '{word}' follows", at=flag, remedy=remedy)
        return super().parse_args(ctx, args)


def _name_values(parameters: list[Any]) -> list[Any]:
    """Let the help name values in the user's words: Typer would print its types, as <bool>."""
    for option in parameters:
        words = options.literal_words(option.type_descriptor.annotation)
        if getattr(option, "is_flag", False):
            option.metavar = ""
        elif option.metavar is None:
            is_text = "str" in str(option.type_descriptor.annotation)
            option.metavar = "|".join(words) or ("NAME" if is_text else "N")
    return parameters


def _write_options(command: Any, context: Any, formatter: Any) -> None:
    """Write arguments and options by panel."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            record = (re.sub(r" <.*>$", "", record[0]), record[1])  # the type of an argument
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
    for title, records in panels.items():
        with formatter.section(title):
            formatter.write_dl(records)


@contextmanager
def _exit_on_closed_stdout() -> Iterator[None]:
    """Exit silently with 141 when stdout is closed (`| head`); typer would exit with 1."""
    try:
        yield
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end: it needs a stream that is open.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


def _exit_on_signal(number: int, _frame: object) -> None:
    """Exit so that temporary files are removed; training saves a checkpoint first instead."""
    raise SystemExit(128 + number)


def _paragraphs(settings: type[options.Settings]) -> list[str]:
    """Return the paragraphs before the examples, each as a line: Typer breaks lines itself."""
    parts = inspect.cleandoc(settings.__doc__ or "").split("\n\n")
    return [" ".join(part.split()) for part in parts if not part.startswith("Examples:")]


def _examples(settings: type[options.Settings]) -> list[str]:
    """Return the command lines of the last paragraph of a docstring."""
    return [line.strip() for line in (settings.__doc__ or "").split("Examples:\n")[-1].strip().splitlines()]


def _take_signature(run: Callable[..., None], settings: type[options.Settings]) -> None:
    """Give `run` the fields of the dataclass, in the order of the help, and the run options as parameters."""
    general = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.RUN_OPTIONS.items()
    ]
    parameters = [*_in_order_of_help(settings), *general]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = "\n\n".join(_paragraphs(settings))


def _in_order_of_help(settings: type[options.Settings]) -> list[inspect.Parameter]:
    """Sort the fields: arguments, required options, then by panel the verb's own and the shared options."""
    blocks = [list(inspect.get_annotations(block)) for block in settings.__mro__]
    panels = {panel: number for number, panel in enumerate(options.PANELS)}

    def rank(parameter: inspect.Parameter) -> tuple[bool, bool, int, int, int]:
        option = get_args(parameter.annotation)[1]
        is_option, is_optional = isinstance(option, OptionInfo), parameter.default is not parameter.empty
        panel = panels.get(option.rich_help_panel, -1)
        block = next(i for i, names in enumerate(blocks) if parameter.name in names)
        return is_option, is_optional, panel, block, blocks[block].index(parameter.name)

    parameters = inspect.signature(settings).parameters.values()
    return sorted((p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters), key=rank)
