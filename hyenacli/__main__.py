"""`python -m hyenacli` and the `hyena` entry point."""

from hyenacli.app import app


def main() -> None:
    """Run the command line; the exit code is the process's."""
    app(prog_name="hyena")


if __name__ == "__main__":
    main()
