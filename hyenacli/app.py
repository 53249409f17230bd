"""The Typer app: the table of verbs, and the boundary where errors become a line and an exit code.

torch is not imported here: a verb's module is imported when the verb runs, so that help stays fast.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import typer

from hyenacli import __version__
from hyenacli.distributed import current_ranks
from hyenacli.verbs import Group, Verb, VerbGroup

INTERRUPTED = 128 + signal.SIGINT
_SPECIES = Group(
    "Predict which species contigs come from.",
    {
        "train": Verb("hyenacli.species.settings:SpeciesTrainSettings", "hyenacli.species.train:run"),
        "evaluate": Verb(
            "hyenacli.species.settings:SpeciesEvaluateSettings", "hyenacli.species.evaluate:run"
        ),
        "predict": Verb("hyenacli.species.settings:SpeciesPredictSettings", "hyenacli.species.predict:run"),
    },
)
_MODELS = Group(
    "List, inspect, convert, verify and publish models.",
    {
        "list": Verb("hyenacli.tools.settings:ListSettings", "hyenacli.tools.models:show_list"),
        "download": Verb("hyenacli.tools.settings:DownloadSettings", "hyenacli.tools.models:download"),
        "info": Verb("hyenacli.tools.settings:InfoSettings", "hyenacli.tools.models:info"),
        "convert": Verb("hyenacli.tools.settings:ConvertSettings", "hyenacli.tools.models:convert"),
        "verify": Verb("hyenacli.tools.settings:VerifySettings", "hyenacli.tools.models:verify"),
        "push": Verb("hyenacli.tools.settings:PushSettings", "hyenacli.tools.models:push"),
    },
)
_CACHE = Group(
    "List or remove what is kept of genomes.",
    {
        "list": Verb("hyenacli.tools.settings:CacheListSettings", "hyenacli.tools.cache:show"),
        "clean": Verb("hyenacli.tools.settings:CacheCleanSettings", "hyenacli.tools.cache:clean"),
    },
)
# Verbs by what they are for, in the order of the help.
VERBS: dict[str, dict[str, Verb | Group]] = {
    "Train": {
        "pretrain": Verb("hyenacli.pretrain.settings:PretrainSettings", "hyenacli.pretrain.command:run"),
        "finetune": Verb("hyenacli.finetune.settings:FinetuneSettings", "hyenacli.finetune.command:run"),
        "classify-species": _SPECIES,
    },
    "Apply": {
        "embed": Verb("hyenacli.embed.settings:EmbedSettings", "hyenacli.embed.command:run"),
        "predict": Verb(
            "hyenacli.finetune.settings:PredictSettings", "hyenacli.finetune.predict_command:run"
        ),
        "score-variants": Verb(
            "hyenacli.variants.settings:ScoreVariantsSettings", "hyenacli.variants.command:run"
        ),
        "score-sequences": Verb(
            "hyenacli.score_sequences.settings:ScoreSequencesSettings", "hyenacli.score_sequences.command:run"
        ),
        "generate": Verb("hyenacli.generate.settings:GenerateSettings", "hyenacli.generate.command:run"),
        "track": Verb("hyenacli.tracks.settings:TrackSettings", "hyenacli.tracks.track_command:run"),
        "dependency-map": Verb(
            "hyenacli.tracks.settings:DependencyMapSettings", "hyenacli.tracks.dependency_map_command:run"
        ),
        "attribute": Verb(
            "hyenacli.tracks.settings:AttributeSettings", "hyenacli.tracks.attribute_command:run"
        ),
        "evaluate": Verb(
            "hyenacli.pretrain.settings:EvaluateSettings", "hyenacli.pretrain.evaluate_command:run"
        ),
        "compare": Verb("hyenacli.compare.settings:CompareSettings", "hyenacli.compare.command:run"),
    },
    "Tools": {
        "models": _MODELS,
        "merge": Verb("hyenacli.tools.settings:MergeSettings", "hyenacli.tools.merge:run"),
        "doctor": Verb("hyenacli.tools.settings:DoctorSettings", "hyenacli.tools.doctor:run"),
        "cache": _CACHE,
    },
}
# What to put behind -m.
_ANY_MODEL = (
    "for human DNA -m hyenadna-small-32k (16 MB; `hyena models list` has all), or your own run or model"
)
_WHICH_MODEL = dict.fromkeys(("predict", "attribute"), "give the directory of a `hyena finetune` run")


class HyenaGroup(VerbGroup):
    """The top-level command; every run ends in its `main`."""

    def __init__(self, **extra: Any) -> None:
        """Take the verbs of the table."""
        super().__init__(panels=VERBS, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take `help VERB` for `VERB --help`, and `version` for `--version`."""
        if args == ["version"]:
            _print_version(on=True)
        if args[:1] == ["help"]:
            return super().resolve_command(ctx, [*args[1:], "--help"]) if args[1:] else self._own_help(ctx)
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
