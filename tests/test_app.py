"""The command line's contract: help, versions, exit codes, one line per error, settings from files."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import hyenadna
from hyenacli import __version__, options, settings_file
from hyenacli.app import VERBS as TABLE
from hyenacli.app import app, one_line
from hyenacli.compare import settings as compare_settings
from hyenacli.errors import UserError
from hyenacli.evaluation import metrics
from hyenacli.variants import scores
from hyenacli.variants import settings as variant_settings
from hyenacli.verbs import Group
from tests.warm import command

_VERBS = {name: verb for panel in TABLE.values() for name, verb in panel.items()}
GROUPS = [name for name, verb in _VERBS.items() if isinstance(verb, Group)]
VERBS = [
    *(name for name in _VERBS if name not in GROUPS),
    *(f"{name} {verb}" for name in GROUPS for verb in _VERBS[name].verbs),
]


def hyena(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="hyena")


def test_version_is_one_plain_line() -> None:
    assert hyena("--version").stdout == f"hyena {__version__}\n"
    assert hyena("version").stdout == f"hyena {__version__}\n"


def test_bare_command_shows_what_there_is() -> None:
    done = hyena()
    assert done.exit_code == 2
    assert "pretrain" in done.output
    assert "error" not in done.output


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_explains_itself_with_an_example(verb: str, flag: str) -> None:
    done = hyena(*verb.split(), flag)
    assert done.exit_code == 0
    assert f"Examples:\n  hyena {verb}" in done.stdout
    assert f"See also: docs/{verb.split(maxsplit=1)[0]}.md\n" in done.stdout
    assert (Path(__file__).parent.parent / "docs" / f"{verb.split(maxsplit=1)[0]}.md").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_has_flags_and_values_that_exist(verb: str) -> None:
    lines = hyena(*verb.split(), "--help").stdout.replace("\\\n", "").splitlines()
    starts = [line.strip() for line in lines if line.startswith(f"  hyena {verb}")]
    assert starts
    for line in starts:
        words = shlex.split(line.partition(" | ")[0].partition(" > ")[0])
        done = hyena(*words[1:], "--print-config")
        assert done.exit_code == 0, (line, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrian", "No such command 'pretrian'. Did you mean 'pretrain'?"),
        ("score", "No such command 'score'. Did you mean 'score-variants', 'score-sequences'?"),
        ("pretrain -o x", "Missing argument 'FASTA'"),
        ("pretrain a.fa", "Missing option '-o'"),
        ("pretrain a.fa -o x --lr abc", "Invalid value for '--lr'"),
        ("pretrain a.fa -o x --max-steps 0", "Invalid value for '--max-steps'"),
        ("pretrain a.fa -o x --learning-rate 1", "No such option: --learning-rate"),
        ("embed a.bed -o x", "Missing option '-m'"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: str, message: str) -> None:
    done = hyena(*arguments.split())
    assert done.exit_code == 2
    assert done.stderr.startswith(f"hyena: error: {message}")
    assert "--help`)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("word", ["true", "False", "yes", "1"])
@pytest.mark.parametrize(
    "line",
    [
        "pretrain a.fa -o x --resume {}",
        "pretrain --rc-augment {} a.fa -o x",
        "embed a.bed -m m -o x --stranded {}",
        "score-variants -q {} a.vcf -m m -f g.fa -o x",
    ],
)
def test_flags_take_no_word_for_a_value(line: str, word: str) -> None:
    done = hyena(*line.format(word).split())
    assert done.exit_code == 2
    assert re.match(rf"hyena: error: -\S+: takes no value, but '{word}' follows; write the flag", done.stderr)


def test_flags_take_no_value_after_an_equals_sign() -> None:
    done = hyena("pretrain", "a.fa", "-o", "x", "--resume=true")
    assert done.exit_code == 2
    assert "Option '--resume' does not take a value" in done.stderr


def test_a_file_may_have_the_name_of_such_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").touch()
    done = hyena("pretrain", "--rc-augment", "1", "-o", "x", "--seed", "1", "--print-config")
    assert done.exit_code == 0
    assert "fasta:\n- '1'\n" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-step: 5\n", "unknown key 'max-step'; did you mean 'max_steps'?"),
        ("quiet: true\n", "unknown key 'quiet'"),
        ("lr: [1\n", "line 2: not valid YAML"),
        ("lr: 2024-13-45\n", "run.yaml: lr: Input should be a valid number"),
        ("seed: 2024-01-02\n", "run.yaml: seed: Input should be a valid integer"),
        ("lr: " + "[" * 5_000, "run.yaml: not valid YAML"),
        ("{a: " * 5_000, "run.yaml: not valid YAML"),
        ("lr: !!timestamp x\n", "run.yaml: lr: Input should be a valid number"),
        ("valid_contigs: [chr1]\n", "run.yaml: valid_contigs: takes one value"),
        ("fasta: {a: b}\n", "run.yaml: fasta: takes a list of values; correct it"),
        ("fasta: [[a]]\n", "run.yaml: fasta: takes a list of values; correct it"),
        ("lr: 1\nlr: 2\n", "run.yaml, line 2: 'lr' is there twice, first in line 1"),
        ("{seed: 1, seed: 2}\n", "'seed' is there twice"),
        ("\xff", "run.yaml: "),
        ("- 1\n", "not a mapping"),
        ("lr: fast\n", "run.yaml: lr: "),
        ("max_steps: -1\n", "run.yaml: max_steps: "),
        ("dtype: half\n", "run.yaml: dtype: 'half' is not one of 'float32', 'bfloat16'; correct it"),
    ],
)
def test_settings_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    done = hyena("pretrain", "a.fa", "-o", str(tmp_path / "run"), "--config", str(path))
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_flags_win_over_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("fasta: [a.fa, b.fa]\noutput: run\nmax-steps: 7\nlr: 0.5\nrc_augment: true\n")
    printed = hyena("pretrain", "--config", str(path), "--lr", "0.25", "--print-config").stdout
    for line in ("- a.fa", "- b.fa", "output: run", "max_steps: 7", "lr: 0.25", "rc_augment: true"):
        assert f"{line}\n" in printed
    path.write_text(printed)
    assert hyena("pretrain", "--config", str(path), "--print-config").stdout == printed


@pytest.mark.parametrize("name", ["NO", "01", "1e5", "1.10", "2024-01-02", "1:30", "0x1F", "on"])
def test_names_in_a_settings_file_stay_as_they_are_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"fasta: {name}\noutput: run\nvalid_contigs: {name}\ntest_contigs: null\nintervals:\n")
    printed = hyena("pretrain", "--config", str(path), "--print-config").stdout
    again = tmp_path / "printed.yaml"
    again.write_text(printed)
    values = settings_file.load_yaml(again, "", as_text=True)
    assert (values["fasta"], values["valid_contigs"]) == ([name], name)
    assert (values["test_contigs"], values["intervals"]) == ("null", "null")


@pytest.mark.parametrize("verb", ["", *GROUPS, *VERBS])
def test_flags_have_no_value_in_the_help(verb: str) -> None:
    assert "<bool>" not in hyena(*verb.split(), "--help").output


@pytest.mark.parametrize("verb", [*GROUPS, *VERBS])
def test_help_cuts_no_name_at_80_columns(verb: str) -> None:
    text = hyena(*verb.split(), "--help").output
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for parameter in _command(verb).params:
        assert all(name in text for name in parameter.opts if name.startswith("--")), parameter.name
    assert not re.search(r"<\w+( range)?>|INTEGER|FLOAT|TEXT|PATH", text)


def test_help_of_a_verb_in_other_words() -> None:
    assert hyena("help", "embed").output == hyena("embed", "--help").output
    assert "Usage: hyena models convert" in hyena("help", "models", "convert").output
    assert hyena("help").output == hyena("--help").output
    assert hyena("help", "embed").exit_code == 0
    assert hyena("help", "nothing").exit_code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_can_be_typed(verb: str) -> None:
    examples = _command(verb).examples
    assert len(examples) >= 3 or verb in {"cache list", "cache clean", "models list", "models push"}
    for example in examples:
        done = hyena(*example.split()[1:], "--print-config")
        assert done.exit_code == 0, (example, done.output)


def _command(verb: str) -> Any:
    command: Any = get_command(app)
    for word in verb.split():
        command = command.commands[word]
    return command


def test_completed_words_are_those_of_models_scores_and_metrics() -> None:
    assert tuple(hyenadna.PRESETS) == options.PRESETS
    assert set(scores.SCORES) == set(variant_settings.SCORES)
    of_tasks = (name for task in get_args(metrics.Task) for name in metrics.metric_names(task, columns=1))
    assert set(of_tasks) - {"columns_left_out"} == set(compare_settings.METRICS)


COMPLETED = {
    "pre": {"pretrain"},
    "models ver": {"verify"},
    "embed --flan": {"--flank"},
    "pretrain --preset tiny-1": {"tiny-1k", "tiny-1k-d256", "tiny-16k"},
    "embed -m hyenadna-sm": {"hyenadna-small-32k"},
    "embed --device c": {"cpu", "cuda"},
    "finetune --method l": {"lora"},
    "embed --dtype b": {"bfloat16"},
    "models convert a b --to h": {"hf"},
    "embed --pool m": {"mean", "max"},
    "score-variants --score llr,s": {"site"},
    "compare --metric mc": {"mcc"},
}
# Each defines what its shell does when Tab is pressed at the end of $line, and prints what is offered.
SHELLS = {
    "bash": """eval "$(_HYENA_COMPLETE=source_bash hyena)"
        COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _hyena_completion hyena
        printf '%s\\n' "${COMPREPLY[@]}" """,
    "zsh": """compdef() { :; }; _arguments() { print -r -- "$1"; }; eval "$(_HYENA_COMPLETE=source_zsh hyena)"
        words=(${=line}); CURRENT=${#words}; _hyena_completion""",
    "fish": "_HYENA_COMPLETE=source_fish hyena | source; complete -C $line",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_offer_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{command().parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    lines = COMPLETED if shell == "bash" else dict(list(COMPLETED.items())[:4])
    for line, expected in lines.items():
        done = subprocess.run(
            [shell, "-c", SHELLS[shell]],
            env=environment | {"line": f"hyena {line}"},
            capture_output=True,
            text=True,
            check=False,
        )
        offered = set(re.findall(r"(?:--)?[a-z][a-z0-9-]+", done.stdout))
        assert expected <= offered, (line, done)
        assert "Usage" not in done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["embed", "pretrain", "merge"])
def test_a_verb_without_arguments_prints_its_usage(verb: str) -> None:
    done = hyena(verb)
    assert done.exit_code == 2
    assert f"Usage: hyena {verb}" in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback_of_a_user_error() -> None:
    plain = hyena("models", "info", "no/such/model")
    assert plain.exit_code == 1
    assert len(plain.stderr.splitlines()) == 1
    assert hyena("models", "info", "no/such/model", "--debug").exception is not None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("bad", at="a.bed", line=3, remedy="mend it"), "a.bed, line 3: bad; mend it"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (
            OSError(28, "No space left on device"),
            "the output cannot be written: no space left on device; free some space or choose another disk",
        ),
        (ValueError("a bug"), None),
        (OSError("a bug"), None),
    ],
)
def test_which_errors_are_the_users(error: Exception, line: str | None) -> None:
    assert one_line(error) == line


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hyenacli.tools.models.info", interrupt)
    assert hyena("models", "info", "x").exit_code == 130


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_settings: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("hyenacli.tools.models.info", fail)
    assert isinstance(hyena("models", "info", "x").exception, ZeroDivisionError)


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "hyenacli", "--version"], capture_output=True, check=True)
    assert done.stdout.decode() == f"hyena {__version__}\n"
