"""The hyena command-line tool: HyenaDNA models for the files a bioinformatician already has."""

__version__ = "0.1.0"
