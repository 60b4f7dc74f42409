"""`aegl <verb> key=value ...`: finds the verb; what a verb needs is imported when it runs."""

from __future__ import annotations

import importlib
import sys

import click

from aegl._version import __version__

VERBS = {
    "train": "Train a detector, evaluate it, keep the best weights.",
    "val": "Evaluate a model, or score a results file (predictions=).",
    "predict": "Detect in images; draw and write what was found.",
    "export": "Write a trained model as ONNX and prove that it gives the same answers.",
    "serve": "Serve an exported model over HTTP: KServe v2, image files, a page to try it.",
    "benchmark": "Measure a model in PyTorch and ONNX Runtime: time, memory, AP, side by side.",
    "compare": "Train methods or recipes side by side, or collect runs; own beside published numbers.",
    "tune": "Search hyper-parameters: trials in parallel, bad ones ended early, the best written down.",
    "plot": "Draw figures of runs and data sets: class counts, AP by class, curves, calibration, gradients.",
    "report": "Write one HTML page of a run, or of several side by side.",
    "data": "Check, count, advise on, download, convert or split a data set.",
    "cfg": "Show the configuration: all defaults, or what given keys resolve to.",
    "models": "List the models.",
    "methods": "List the long-tail methods, or explain one.",
    "checks": "Show versions, devices and what works here.",
}
_RAW = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


class _Verbs(click.Group):
    """Verbs as click commands that hand their words on as they are."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            from aegl.config.hints import did_you_mean

            click.echo(
                f"aegl: error: {cmd_name}: unknown verb{did_you_mean(cmd_name, VERBS)}; verbs are {', '.join(VERBS)}",
                err=True,
            )
            ctx.exit(2)
        return _command(cmd_name)


def _command(verb: str) -> click.Command:
    @click.pass_context
    def callback(ctx: click.Context, words: tuple[str, ...]) -> None:
        if any(word in ("--help", "-h", "help") for word in words):
            from aegl_cli.help import verb_help

            click.echo(verb_help(verb, VERBS[verb]))
            return
        module = importlib.import_module(f"aegl_cli.{verb}")
        ctx.exit(module.main(list(words)))

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(verb, callback=callback, params=[words], short_help=VERBS[verb], context_settings=_RAW)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Arguments are key=value or --key value: aegl train data=shapes_lt model=mini method=fbs_aegl. "
    "--json prints the result as one JSON object, --quiet shows no progress. aegl <verb> --help lists the verb's keys. "
    "Exit codes: 0: done; 1: the run failed; 2: a wrong input; "
    "75: no progress (watchdog_minutes); 128 + n: stopped by signal n (130: Ctrl-C).",
)
@click.version_option(__version__, prog_name="aegl")
def cli() -> None:
    """Long-tail detection: train, evaluate, predict and export with one command line."""


def main() -> None:
    """Entry point of the `aegl` command."""
    sys.exit(cli())
