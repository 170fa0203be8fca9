"""The command as a user meets it, run in this process."""

import pytest

from genda import cli


def run(capsys, *arguments):
    """Exit code, standard output, standard error."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["genda", *map(str, arguments)])
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err
