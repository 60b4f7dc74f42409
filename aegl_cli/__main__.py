"""`python -m aegl_cli`: the `aegl` command, for launchers that start Python modules (torchrun)."""

from aegl_cli.main import main

if __name__ == "__main__":
    main()
