"""The commands and their options. What a command does is in the module of its name."""

from __future__ import annotations

from typing import Annotated

import typer

from mmcore.entrypoints.cli.failures import one_line_errors

app = typer.Typer(
    name="mmcore",
    help="Multimodal LLM inference: pictures and text in, text out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Folder of a checkpoint in Hugging Face format.",
        show_default="the bundled one",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def print_version(value: bool) -> None:
    """Print the version and exit."""
    if value:
        import mmcore

        typer.echo(f"mmcore {mmcore.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Multimodal LLM inference: pictures and text in, text out."""
    context.obj = show_traceback


@app.command()
def generate(
    context: typer.Context,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What to ask; - reads it from standard input.")
    ],
    model: Model = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", "-i", help="Path, http(s) or data: URL. Repeat it for several, in order."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this sum.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep this many tokens; -1 keeps all.")] = -1,
    min_p: Annotated[
        float, typer.Option(help="Drop tokens below this share of the likeliest.")
    ] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End at this text. Repeat it for several.")
    ] = None,
    presence_penalty: Annotated[float, typer.Option(help="In [-2, 2].")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option(help="In [-2, 2].")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="In (0, 2]; 1 is none.")] = 1.0,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on after the end.")] = False,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Wrap the prompt in the checkpoint's chat template.",
            show_default="if it has one and the prompt holds no placeholder",
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    max_model_len: Annotated[
        int | None, typer.Option(help="Most tokens of prompt and output.", show_default="the model")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer one prompt, with pictures or without."""
    with one_line_errors(show_traceback=context.obj):
        from mmcore.entrypoints.cli.generate import Question, run

        question = Question(
            prompt=prompt,
            images=tuple(image or ()),
            chat=chat,
            sampling={
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "min_p": min_p,
                "seed": seed,
                "stop": stop or None,
                "presence_penalty": presence_penalty,
                "frequency_penalty": frequency_penalty,
                "repetition_penalty": repetition_penalty,
                "ignore_eos": ignore_eos,
            },
        )
        run(question, model=model, dtype=dtype, max_model_len=max_model_len, as_json=as_json)


@app.command()
def demo(context: typer.Context) -> None:
    """Caption the bundled picture with the bundled checkpoint."""
    with one_line_errors(show_traceback=context.obj):
        from mmcore.entrypoints.cli.demo import run

        run()


@app.command()
def info(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the build, this machine, and the models with what each accepts."""
    with one_line_errors(show_traceback=context.obj):
        from mmcore.entrypoints.cli.info import run

        run(as_json=as_json)


@app.command()
def check(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint.", show_default=False)],
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    max_model_len: Annotated[
        int | None, typer.Option(help="Most tokens of prompt and output.", show_default="the model")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run for a checkpoint, from its headers alone."""
    with one_line_errors(show_traceback=context.obj):
        from mmcore.entrypoints.cli.check import run

        run(model, dtype=dtype, max_model_len=max_model_len, as_json=as_json)
