"""The Typer app: the verbs, and the boundary where errors become a line and an exit code.

torch is not imported here: a verb's command module is imported when the verb runs, so that help stays fast.
"""

import errno
import importlib
import inspect
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from hyenacli import __version__, console, options, settings_file
from hyenacli.compare.settings import CompareSettings
from hyenacli.distributed import current_ranks, handle_signals, launch, launched
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError
from hyenacli.finetune.settings import FinetuneSettings, PredictSettings
from hyenacli.generate.settings import GenerateSettings
from hyenacli.pretrain.settings import EvaluateSettings, PretrainSettings
from hyenacli.score_sequences.settings import ScoreSequencesSettings
from hyenacli.species.settings import SpeciesEvaluateSettings, SpeciesPredictSettings, SpeciesTrainSettings
from hyenacli.tools.settings import (
    CacheCleanSettings,
    CacheListSettings,
    ConvertSettings,
    DoctorSettings,
    DownloadSettings,
    InfoSettings,
    ListSettings,
    MergeSettings,
    VerifySettings,
)
from hyenacli.tracks.settings import AttributeSettings, DependencyMapSettings, TrackSettings
from hyenacli.variants.settings import ScoreVariantsSettings

BROKEN_PIPE = 128 + signal.SIGPIPE
# Values that users of other tools give to flags.
_BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")
INTERRUPTED = 128 + signal.SIGINT
# Verbs by what they are for, in the order of the help.
_VERB_GROUPS = {
    "Train": ("pretrain", "finetune", "classify-species"),
    "Apply": (
        *("embed", "predict", "score-variants", "score-sequences", "generate", "track"),
        *("dependency-map", "attribute", "evaluate"),
    ),
    "Tools": ("models", "merge", "doctor", "cache"),
}
# What to put behind -m.
_ANY_MODEL = (
    "for human DNA -m hyenadna-small-32k (16 MB; `hyena models list` has all), or your own run or model"
)
_WHICH_MODEL = dict.fromkeys(("predict", "attribute"), "give the directory of a `hyena finetune` run")


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
    """Write arguments and options by panel, as plain text: a table would cut names at 80 columns."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            record = (re.sub(r" <.*>$", "", record[0]), record[1])  # the type of an argument
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
    for title, records in panels.items():
        with formatter.section(title):
            formatter.write_dl(records)


class VerbGroup(TyperGroup):
    """Group of verbs, which the help lists by what they are for."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options."""
        return _name_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help and exit with 2."""
        if not args:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then the commands by group."""
        _write_options(self, ctx, formatter)
        grouped = {name for names in _VERB_GROUPS.values() for name in names}
        others = [name for name in self.commands if name not in grouped]
        for title, names in (*_VERB_GROUPS.items(), ("Commands", others)):
            commands = [(name, self.commands[name]) for name in names if name in self.commands]
            if commands and (title == "Commands" or len(self.commands) > 6):
                with formatter.section(title):
                    formatter.write_dl(
                        [(name, command.get_short_help_str(200)) for name, command in commands]
                    )


class HyenaGroup(VerbGroup):
    """The top-level command; every run ends in its `main`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take `help VERB` for `VERB --help`, and `version` for `--version`."""
        if args[:1] == ["help"]:
            return super().resolve_command(ctx, [*args[1:2], "--help"]) if args[1:] else self._own_help(ctx)
        return super().resolve_command(ctx, args)

    @staticmethod
    def _own_help(ctx: Any) -> Any:
        typer.echo(ctx.get_help())
        raise typer.Exit

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run and exit: 0 done, 1 data or run-time error, 2 usage, 130 Ctrl-C, 141 closed pipe.

        User errors are one line on stderr (with the traceback under --debug); anything else is a bug and
        keeps its traceback.
        """
        arguments = args[0] if args else extra.pop("args", None)
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, **extra)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception as error:
            if (line := one_line(error)) is None or "--debug" in arguments:
                raise
            if line:
                _print_error(line)
            code = getattr(error, "exit_code", 1)
        sys.exit(code if isinstance(code, int) else 0)


class VerbCommand(TyperCommand):
    """Command of a verb, whose flags take no value."""

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
        if not args and any(parameter.required for parameter in self.params):
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        flags = {name for option in self.params if getattr(option, "is_flag", False) for name in option.opts}
        for flag, word in itertools.pairwise(args):
            if flag in flags and word.lower() in _BOOLEANS and not Path(word).exists():
                remedy = "write the flag alone, or leave it out"
                raise UsageError(f"takes no value, but '{word}' follows", at=flag, remedy=remedy)
        return super().parse_args(ctx, args)


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


def _print_error(line: str) -> None:
    """Print an error; of the processes that a launcher has started here, only the first to fail prints."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        # The launcher gives every process of an attempt a folder of its own inside one common folder.
        try:
            (Path(file).parent.parent / "error-printed").touch(exist_ok=False)
        except FileExistsError:
            return
    rank = current_ranks().rank
    print(f"hyena: error: {f'process {rank}: ' if rank else ''}{line}", file=sys.stderr)  # noqa: T201


def one_line(error: Exception) -> str | None:
    """Return the message of an error that the user can mend, or None for a bug.

    User errors carry an `exit_code`: ours, the model package's and the option parser's. Of the operating
    system's errors, those that name a file, and a full disk, are the user's to mend.
    """
    if hasattr(error, "exit_code"):
        if not hasattr(error, "format_message"):
            return str(error)
        # The parser's: empty where it has just printed the help instead.
        message = str(error.format_message()).replace(": Value error, ", ": ")
        context = getattr(error, "ctx", None)
        if getattr(getattr(error, "param", None), "name", None) == "model" and context:
            message = f"{message.rstrip('.')}; {_WHICH_MODEL.get(context.info_name, _ANY_MODEL)}"
        return message and message + (f" (see `{context.command_path} --help`)" if context else "")
    if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
        full = "the output cannot be written: no space left on device; free some space or choose another disk"
        return f"{error.filename}: {error.strerror}" if error.filename else full
    return None


app = typer.Typer(
    cls=HyenaGroup,
    help="Pretrain, adapt and apply HyenaDNA genomic language models on FASTA, BED, VCF and tables.",
    epilog="Region strings (chr1:101-200) and VCF count from 1, BED from 0. `-` is stdin or stdout. "
    "`hyena help VERB` explains a verb. Every long option may be set in a file (--config).",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(on: bool) -> None:
    if on:
        typer.echo(f"hyena {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_print_version, help="Print the version."
    ),
) -> None:
    """Take the options of `hyena` itself."""


def add_verb(parent: typer.Typer, name: str, settings: type[options.Settings], target: str) -> None:
    """Add a verb whose arguments and options are the fields of a frozen dataclass.

    Args:
        parent: the app to add to.
        name: the verb.
        settings: dataclass whose fields are `Annotated` with typer parameters; its docstring is the help.
        target: "module:function", imported when the verb runs and called with one instance; it returns the
            exit code, or None for 0. With --nproc-per-node, processes are started that do this instead.
    """

    def run(**values: Any) -> None:
        how = {key: values.pop(key) for key in options.RUN_OPTIONS}
        resolved = settings(**values)
        if how["print_config"]:
            typer.echo(settings_file.to_yaml(resolved), nl=False)
            return
        module, function = target.split(":")
        with (
            handle_signals((signal.SIGTERM, signal.SIGHUP), _exit_on_signal),
            _exit_on_closed_stdout(),
            console.session(quiet=how["quiet"], verbose=how["verbose"], log_json=how["log_json"]),
        ):
            if (processes := getattr(resolved, "nproc_per_node", None)) and not launched():
                raise typer.Exit(launch(processes))
            code = getattr(importlib.import_module(module), function)(resolved)
            sys.stdout.flush()
        raise typer.Exit(code or 0)

    _take_signature(run, settings)
    parent.command(name, cls=VerbCommand)(run)


def _take_signature(run: Callable[..., None], settings: type[options.Settings]) -> None:
    """Give `run` the fields of the dataclass, in the order of the help, and the run options as parameters."""
    general = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.RUN_OPTIONS.items()
    ]
    parameters = [*_in_order_of_help(settings), *general]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    # A paragraph is a line to Typer, which breaks lines itself.
    paragraphs = inspect.cleandoc(settings.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


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


species_app = typer.Typer(
    cls=VerbGroup,
    rich_markup_mode=None,
    help="Predict which species contigs come from.",
)
cache_app = typer.Typer(cls=VerbGroup, rich_markup_mode=None, help="List or remove what is kept of genomes.")
models_app = typer.Typer(
    cls=VerbGroup,
    rich_markup_mode=None,
    help="List, inspect, convert and verify models.",
)

add_verb(app, "pretrain", PretrainSettings, "hyenacli.pretrain.command:run")
add_verb(app, "finetune", FinetuneSettings, "hyenacli.finetune.command:run")
add_verb(app, "evaluate", EvaluateSettings, "hyenacli.pretrain.evaluate_command:run")
add_verb(app, "predict", PredictSettings, "hyenacli.finetune.predict_command:run")
add_verb(app, "embed", EmbedSettings, "hyenacli.embed.command:run")
add_verb(app, "score-variants", ScoreVariantsSettings, "hyenacli.variants.command:run")
add_verb(app, "generate", GenerateSettings, "hyenacli.generate.command:run")
add_verb(app, "compare", CompareSettings, "hyenacli.compare.command:run")
add_verb(app, "score-sequences", ScoreSequencesSettings, "hyenacli.score_sequences.command:run")
add_verb(app, "track", TrackSettings, "hyenacli.tracks.track_command:run")
add_verb(app, "dependency-map", DependencyMapSettings, "hyenacli.tracks.dependency_map_command:run")
add_verb(app, "attribute", AttributeSettings, "hyenacli.tracks.attribute_command:run")
add_verb(app, "merge", MergeSettings, "hyenacli.tools.merge:run")
add_verb(app, "doctor", DoctorSettings, "hyenacli.tools.doctor:run")
app.add_typer(species_app, name="classify-species")
add_verb(species_app, "train", SpeciesTrainSettings, "hyenacli.species.train:run")
add_verb(species_app, "evaluate", SpeciesEvaluateSettings, "hyenacli.species.evaluate:run")
add_verb(species_app, "predict", SpeciesPredictSettings, "hyenacli.species.predict:run")
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
add_verb(cache_app, "list", CacheListSettings, "hyenacli.tools.cache:show")
add_verb(cache_app, "clean", CacheCleanSettings, "hyenacli.tools.cache:clean")
add_verb(models_app, "list", ListSettings, "hyenacli.tools.models:show_list")
add_verb(models_app, "download", DownloadSettings, "hyenacli.tools.models:download")
add_verb(models_app, "info", InfoSettings, "hyenacli.tools.models:info")
add_verb(models_app, "convert", ConvertSettings, "hyenacli.tools.models:convert")
add_verb(models_app, "verify", VerifySettings, "hyenacli.tools.models:verify")
