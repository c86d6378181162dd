"""The command line: every command of ``pudnet``; ``--help`` never waits for torch.

A command is a function with ``@command(parameter="module:Config")``, its docstring the help. Options that stand in a
config are made from it when the command is called: same names, same defaults, help from the docstring's Attributes.
"""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import json
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.profiles import known_profile, replace_fields

Command = Callable[..., None]
UsageError: Any = typer.BadParameter.__base__  # typer has click inside, or beside it
COMMANDS: dict[str, tuple[Command, dict[str, str]]] = {}


def command(**configs: str) -> Callable[[Command], Command]:
    """Register a command: its docstring is its help, ``parameter="module:Config"`` gives it that config's options."""

    def register(function: Command) -> Command:
        COMMANDS[function.__name__.replace("_", "-")] = (function, configs)
        return function

    return register


class _LazyCommand(TyperCommand):
    """A command that is known by name and help line; its options are made when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        function, configs = COMMANDS[self.name or ""]
        text = inspect.getdoc(function)
        for parameter, place in configs.items():
            module, _, name = place.partition(":")
            function = with_options(getattr(import_module(f"pudnet_lib.{module}"), name), parameter)(function)
        made = typer.Typer(**PLAIN)
        made.command(name=self.name, help=text)(function)
        return typer.main.get_command(made).make_context(info_name, args, parent=parent, **extra)


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        function = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else None
        return function and _LazyCommand(name=cmd_name, short_help=(function.__doc__ or "").splitlines()[0])

    def invoke(self, ctx: Any) -> Any:  # a wrong option is one line, as all bad input is
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise PudNetError(f"{error.format_message().rstrip('.')}. See {error.ctx.command_path} --help.") from error


PLAIN: Any = {"add_completion": False, "rich_markup_mode": None}  # click's own help cuts no option's name
app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, **PLAIN)


@app.callback(invoke_without_command=True)
def _pudnet(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """PudNet Kit: predict the parameters of ConvNets for unseen image data."""
    if version:
        from pudnet_lib import __version__

        typer.echo(f"pudnet {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command and end the process: 0 done, 1 something failed, 2 bad input (one line on stderr), 130 Ctrl-C."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is a Ctrl-C
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="pudnet")
    except (PudNetError, OSError) as error:
        text = str(error).replace("pass on_error='skip'", "give --on-error skip")
        if isinstance(error, OSError):
            text = ": ".join(filter(None, [str(error.filename or ""), error.strerror or str(error)]))
        print(f"pudnet: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)


def with_options(config: type | Any, parameter: str = "config") -> Callable[[Command], Command]:
    """Give a typer function one option a field of a config (``episode.ways``: ``--episode-ways``) in its place."""
    base = config() if isinstance(config, type) else config
    options = dict(_options(base))

    def decorate(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        own = inspect.signature(function).parameters.values()
        kept = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in own if p.name != parameter]

        def run(**given: Any) -> None:
            changes = {name: given.pop(option.name) for name, option in options.items()}
            for name, value in changes.items():
                if isinstance(value, list):  # --seeds 0,1 --seeds 2 is three seeds
                    changes[name] = [parse_value(part) for text in value for part in text.split(",")]
                for number in changes[name] if isinstance(value, list) else [value]:
                    if isinstance(number, int | float) and not 0 <= number < 2**63:
                        raise PudNetError(f"{_flag(name)} is {number}; expected 0 or more, below 2^63.")
            function(**given, **{parameter: replace_fields(base, changes)})

        every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept, *options.values())]
        run.__name__, run.__annotations__ = function.__name__, {p.name: p.annotation for p in every}
        run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # what typer reads
        return run

    return decorate


def _flag(name: str) -> str:
    return "--" + re.sub(r"[._]", "-", name)


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, inspect.Parameter]]:
    """Walk over the fields of a config, nested ones included: (dotted name, parameter for typer)."""
    hints, docs = get_type_hints(type(config)), attribute_docs(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value, f"{name}.")
        elif field.init:
            annotation, metavar = _typer_type(hints[field.name])
            default = [str(item) for item in value] if isinstance(value, tuple) else value
            flag = _flag(name) + (f"/--no-{_flag(name)[2:]}" if annotation is bool else "")
            option = typer.Option(flag, help=docs.get(field.name, ""), metavar=metavar, show_default=True)
            how: Any = {"default": default, "annotation": Annotated[annotation, option]}
            yield name, inspect.Parameter(name.replace(".", "_"), inspect.Parameter.KEYWORD_ONLY, **how)


def _typer_type(hint: Any) -> tuple[Any, str | None]:
    """Translate a field's type into one that typer reads, with a word for the help text."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return str, "|".join(map(str, arguments))
    inner = [a for a in arguments if a is not type(None)]
    if origin in (Union, types.UnionType) and len(inner) == 1:
        annotation, metavar = _typer_type(inner[0])
        return annotation | None, metavar
    if origin is tuple:
        return list[str], ",".join(["…" if a is Ellipsis else getattr(a, "__name__", str(a)) for a in arguments])
    return hint, None


def parse_value(text: str) -> Any:
    """Read a parameter from the command line: a literal (``8``, ``0.1``, ``true``, ``[1, 2]``), else text."""
    text, words = text.strip(), {"true": True, "false": False, "none": None, "null": None}
    with contextlib.suppress(ValueError, SyntaxError):
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    return text


def parse_grid(entries: Sequence[str]) -> dict[str, list[Any]]:
    """Read ``["width=8,16", "alpha=0,0.1"]``; a comma inside brackets does not separate."""
    grid: dict[str, list[Any]] = {}
    for entry in entries:
        name, sign, text = entry.partition("=")
        if not sign or not name.strip() or not text.strip() or name.strip() in grid:
            raise PudNetError(f"Grid entry {entry!r} is not name=value,value…, or names a parameter twice.")
        grid[name.strip()] = [parse_value(part) for part in re.split(r",(?![^\[(]*[\])])", text)]
    return grid


def attribute_docs(config: type) -> dict[str, str]:
    """Read the Attributes sections of a Google-style docstring and those of its bases: attribute → one line."""
    pattern, found = r"^    (\w+)(?: \([^)]*\))?: (.*?)(?=^    \w|\Z)", dict[str, str]()
    for kind in reversed(config.__mro__):
        section = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", inspect.getdoc(kind) or "", re.DOTALL | re.MULTILINE)
        found |= dict(re.findall(pattern, section[1] if section else "", re.DOTALL | re.M))
    return {name: " ".join(text.split()) for name, text in found.items()}


def _on_error(word: str) -> Any:
    meanings = {"skip": "skip", "stop": "raise"}
    if word not in meanings:
        raise unknown_name("--on-error", word, meanings)
    return meanings[word]


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise PudNetError(f"{option} is {text!r}; expected whole numbers with commas, such as 1,2,3.") from None


@contextlib.contextmanager
def show_progress(names: list[str]) -> Iterator[Callable[[str, str], None]]:
    """Show where each of some jobs is: a live line each on a terminal, else one line an event."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

    console, started = Console(stderr=True), time.monotonic()
    columns = SpinnerColumn(), "{task.description}", "{task.fields[word]}", TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {name: bar.add_task(name, start=False, total=1, word="waiting") for name in names}

        def tell(name: str, word: str) -> None:
            if not console.is_terminal:
                print(f"[{time.monotonic() - started:5.0f} s] {name or 'batch'}: {word}", flush=True)
            elif name not in tasks:
                console.print(word)
            else:
                bar.start_task(tasks[name])
                bar.update(tasks[name], word=word, completed=int(word.startswith(("done", "FAILED"))))

        yield tell


def _say_trained(outcome: Any) -> None:
    typer.echo(f"{outcome.model_path}: {outcome.steps} steps, {outcome.seconds:.0f} s")


Images = Annotated[str, typer.Argument(help="Image folder, zip of one, or a name of `pudnet datasets`.")]
Network = Annotated[Path, typer.Argument(help="A network.safetensors that `pudnet predict` wrote.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of the run; made if need be, resumed if it holds one.")]
Profile = Annotated[str, typer.Option(help="smoke, laptop or paper.")]
Part = Annotated[str, typer.Option(help="Part of the images: test, train or all.")]
TunedFolder = Annotated[Path, typer.Option(help="Folder for the fine-tuned network.")]
OnError = Annotated[str, typer.Option(help="What a picture that can't be read does.", metavar="skip|stop")]


@command()
def check(
    folder: Images,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Draw the first pictures of each class into this PNG.")] = None,
    on_error: OnError = "skip",
) -> None:
    """Show what is understood of an image folder or zip: classes, split, copies, odd pictures, what is passed over.

    Example: pudnet check ./pictures --sheet sheet.png. Exit code 0 where it can be used, 2 where it can't.
    """
    from pudnet_lib.images.folder import refuse_inside
    from pudnet_lib.images.sources import checked, contact_sheet

    if sheet is not None:
        refuse_inside(sheet, folder)
    report, images = checked(folder, 32, sys.stderr.isatty(), _on_error(on_error))
    typer.echo(json.dumps(report.to_json()) if as_json else str(report))
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(images).savefig(sheet, format="png")


@command(config="batch.reproduce:BatchConfig")
def reproduce(
    config: Any,
    notebooks: Annotated[list[str] | None, typer.Argument(help="Paths, names or numbers; by default all.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="Fan out over values.", metavar="NAME=VALUE,…")] = None,
    out_dir: Annotated[Path | None, typer.Option(help="Where runs are kept; by default reports/runs.")] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Write reports/results and the notebooks' outputs.")] = False,
) -> None:
    """Run all or some notebooks, keep their results and build the report; a killed batch goes on where it was."""
    from pudnet_lib.batch import reproduce as batch
    from pudnet_lib.batch.site import build_site, write_readme
    from pudnet_lib.results import project_root

    root = project_root()
    runs = batch.reproduce(notebooks or (), config, parse_grid(grid or ()), out_dir, show_progress)
    page, damaged = build_site(config.profile, runs_dir=out_dir)
    failed = [run for run in runs if run.status != "ok"]
    for line in [*damaged, *(f"{run.name} failed: {run.error}" for run in failed)]:
        typer.echo(line, err=True)
    if commit and not failed:
        typer.echo(f"{len(batch.commit(runs, out_dir))} committed files changed; look at them with git diff.")
        write_readme(root)
    where = page.relative_to(root) if page.is_relative_to(root) else page
    nothing = "; nothing was committed, as all must be good for that" if commit and failed else ""
    typer.echo(f"{len(runs) - len(failed)} of {len(runs)} runs are done; the report: {where}{nothing}")
    if failed:
        raise typer.Exit(1)


@command()
def site(
    profile: Profile = "laptop",
    readme: Annotated[bool, typer.Option("--readme", help="Write the committed reports/README.md, too.")] = False,
) -> None:
    """Build the report from the results that are there, without running anything."""
    from pudnet_lib.batch.site import build_site, write_readme
    from pudnet_lib.results import project_root

    page, damaged = build_site(known_profile(profile))
    for line in damaged:
        typer.echo(line, err=True)
    typer.echo(page)
    if readme:
        typer.echo(write_readme(project_root()))


@command()
def compare(
    before: Annotated[Path, typer.Argument(help="The first folder of result files.")],
    after: Annotated[Path, typer.Argument(help="The second.")],
    everything: Annotated[bool, typer.Option("--all", help="List what stayed within its interval, too.")] = False,
) -> None:
    """Show which numbers moved beyond their 95 % intervals between two folders of result files."""
    from pudnet_lib.batch.compare import compare

    table = compare(before, after)
    shown, counts = table if everything else table[table["status"] != "within"], table["status"].value_counts()
    if len(shown):
        typer.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="—"))
    typer.echo(", ".join(f"{counts.get(word, 0)} {word}" for word in ("moved", "within", "new", "gone")))
    if counts.get("moved", 0):
        raise typer.Exit(1)


@command()
def lab(options: Annotated[list[str] | None, typer.Argument(help="Options for JupyterLab.")] = None) -> None:
    """Open JupyterLab on the notebooks; they use this environment, whatever kernels are installed elsewhere."""
    from pudnet_lib.batch.lab import start_lab

    raise typer.Exit(start_lab(options or []))


@command()
def strip(notebooks: Annotated[list[Path], typer.Argument(help="Notebook files.")]) -> None:
    """Remove outputs and execution counts from notebooks, in place."""
    from pudnet_lib.batch.notebook import strip_file

    for path in notebooks:
        typer.echo(f"{path}: {'stripped' if strip_file(path) else 'clean already'}")


@command(config="core.predict:PredictConfig")
def predict(
    config: Any,
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder for the network.")],
    task: Annotated[str, typer.Option(help="What the network is for.", metavar="classify|denoise")] = "classify",
    model: Annotated[str | None, typer.Option(help="A shipped model or .safetensors file. [default: by task]")] = None,
    classify: Annotated[list[Path] | None, typer.Option(help="Pictures to classify at once; repeatable.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write OUT/network.onnx, checked with onnxruntime.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Write OUT/network.pt2 (torch.export).")] = False,
    trust: Annotated[bool, typer.Option(help="Estimate the accuracy by cross-validation and advise.")] = True,
    seconds: Annotated[float, typer.Option(help="How long --model auto may compare predictors.", min=0)] = 20.0,
    on_error: OnError = "skip",
) -> None:
    """Predict a ConvNet for a folder (or zip) of images, one subfolder a class, without training.

    Writes OUT/network.safetensors and OUT/README.md (model card); see pudnet_lib.export.models.load_network. Example:
    pudnet predict FOLDER --out runs/mine --onnx. With --task denoise FOLDER holds noisy pictures of any size;
    OUT/cleaned gets the cleaned ones, OUT/network.safetensors the network (pudnet_lib.denoise.Denoiser.load).
    """
    models = {"classify": "auto", "denoise": "denoiser"}
    if task not in models:
        raise unknown_name("task", task, models)
    model = model or models[task]
    if task == "denoise":
        from pudnet_lib.denoise import DenoiserConfig, clean_folder
        from pudnet_lib.export.models import load_model
        from pudnet_lib.shipped import load_shipped

        if onnx or export or classify or config != type(config)(seed=config.seed):
            takes = "--task denoise takes --out, --model, --seed and --on-error"
            raise PudNetError(f"{takes}; the other options are for classify.")
        predictor = load_model(model)[0] if model.endswith(".safetensors") else load_shipped(model)
        done = clean_folder(predictor, Path(images), out, DenoiserConfig(seed=config.seed), _on_error(on_error))
        took = 1000 * sum(done.network.seconds.values())
        typer.echo(f"{out / 'network.safetensors'}: predicted in {took:.0f} ms from {Path(images).name}")
        typer.echo("\n".join([f"{out / 'cleaned'}:", *done.lines()]))
        return
    from pudnet_lib.face import predict_folder

    what: Any = {"onnx": onnx, "export": export, "trust": trust, "seconds": seconds, "classify": classify or []}
    for line in predict_folder(images, out, model, config, on_error=_on_error(on_error), **what):
        typer.echo(line)


def _network_and_images(path: Path, images: str, split: str, on_error: str) -> tuple[Any, Any]:
    from pudnet_lib.export.models import load_network
    from pudnet_lib.images import load_images

    network = load_network(path)
    how = network.image_size, network.channels, sys.stderr.isatty(), None, _on_error(on_error)
    data = load_images(images, split, *how)  # type: ignore[arg-type]
    if data.class_names != network.class_names:
        expected = ", ".join(network.class_names[:8])
        raise PudNetError(f"{data.name} has other classes than the network, which tells apart: {expected}.")
    return network, data


@command()
def evaluate(network: Network, images: Images, split: Part = "test", on_error: OnError = "skip") -> None:
    """Measure a network's accuracy, with its 95 % interval, on images of its classes that it has not seen."""
    from pudnet_lib.supervised import accuracy
    from pudnet_lib.trust import wilson

    net, data = _network_and_images(network, images, split, on_error)
    right = round(accuracy(net, data) / 100 * len(data))
    low, high = wilson(right, len(data))
    share = f"{100 * right / len(data):.1f} % [{low:.1f}, {high:.1f}]"
    where = f"{right} of {len(data)} images of {data.name} ({split})"
    typer.echo(f"{share}: {where} are right; chance is {100 / data.num_classes:.1f} %")


@command(config="supervised:ScratchConfig")
def finetune(config: Any, network: Network, images: Images, out: TunedFolder, on_error: OnError = "skip") -> None:
    """Train a predicted network on with images of its classes, and say what it gained on the test part."""
    from pudnet_lib.core.predict import PredictedNetwork
    from pudnet_lib.export.models import save
    from pudnet_lib.images.folder import refuse_inside
    from pudnet_lib.supervised import accuracy
    from pudnet_lib.supervised import finetune as train_on

    refuse_inside(out, images)
    net, data = _network_and_images(network, images, "train", on_error)
    test = _network_and_images(network, images, "test", on_error)[1]
    done = train_on(net, data, None, config, progress=sys.stderr.isatty())
    head: Any = done.network.head
    facts = net.class_names, net.image_size, net.channels, net.target, net.origin
    tuned = PredictedNetwork(done.network.backbone, head.vectors, float(head.scale.detach()), *facts)
    save(tuned, out / "network.safetensors")
    gain = f"{accuracy(net, test):.1f} % before, {accuracy(tuned, test):.1f} % after"
    took = f"{out / 'network.safetensors'}: {done.seconds:.1f} s of training"
    typer.echo(f"{took}; accuracy on {len(test)} test images {gain}")


@command(config="methods.training:TrainConfig", scale="core.meta:ScaleConfig")
def train(config: Any, scale: Any, run: RunFolder) -> None:
    """Meta-train a hypernetwork on a pool of image sources; an interrupted run goes on where it stopped."""
    from pudnet_lib.core.meta import is_first_rank
    from pudnet_lib.methods.training import train as train_run

    given = [entry.partition("=") for entry in scale.resume_with]
    config = replace_fields(config, {f"meta.{name}": parse_value(value) for name, sign, value in given if sign})
    scale = dataclasses.replace(scale, resume_with=tuple(name for name, *_ in given))
    outcome = train_run(config, run, scale=scale)
    if is_first_rank():
        _say_trained(outcome)
        if outcome.validation is not None:
            typer.echo(f"accuracy on held-out training classes: {100 * outcome.validation:.1f} %")
        typer.echo(f"Next: pudnet predict FOLDER --out DIR --model {outcome.model_path}")


@command(config="denoise.train:DenoiserTrainConfig")
def denoise_train(config: Any, run: RunFolder) -> None:
    """Meta-train a hypernetwork that predicts denoising U-Nets; an interrupted run goes on where it stopped."""
    from pudnet_lib.denoise.train import train_denoiser

    _say_trained(train_denoiser(config, run))


@command()
def grow_zoo(
    sources: Annotated[str, typer.Option(help="Packs, names or folders, with commas.")] = "fashion,emoji,glyphs",
    train_episodes: Annotated[int, typer.Option(help="Episodes of training classes in all.", min=1)] = 1000,
    held_out_episodes: Annotated[int, typer.Option(help="Episodes of held-out classes in all.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Of episodes and initialisation.", min=0)] = 0,
) -> None:
    """Train more networks for the zoo of notebook 01; an interrupted run goes on where it stopped."""
    from pudnet_lib.studies.zoo import Initialisation, ZooConfig, load_zoo

    starts: tuple[Initialisation, ...] = ("same", "different")
    for source, start in itertools.product(sources.split(","), starts):
        _, _, fit, test = load_zoo(ZooConfig(source.strip(), start, seed=seed), train_episodes, held_out_episodes)
        networks = f"{len(fit.indices)} training and {len(test.indices)} held-out networks"
        lost = f"{fit.diverged + test.diverged} diverged and left out; {fit.seconds + test.seconds:.0f} s of training"
        typer.echo(f"{source}, {start} initialisation: {networks}, {lost}")


@command(scale="core.meta:ScaleConfig")
def imagenet_train(
    scale: Any,
    profile: Profile = "laptop",
    methods: Annotated[str, typer.Option(help="Some of the methods, with semicolons; by default all.")] = "",
    seeds: Annotated[str, typer.Option(help="Some of the seeds, with commas; by default all.")] = "",
) -> None:
    """Meta-train the methods of notebook 04, on one device or under torchrun; the notebook then finds them."""
    from pudnet_lib.core.meta import is_first_rank
    from pudnet_lib.methods.training import run_folder, train
    from pudnet_lib.studies import imagenet

    if scale.patience:
        raise PudNetError("--patience would give the methods different numbers of steps; leave it at 0.")
    runs, _ = imagenet.planned(known_profile(profile))
    names, wanted = [*dict.fromkeys(run.name for run in runs)], [m.strip() for m in methods.split(";") if m.strip()]
    for name in wanted:
        if name not in names:
            raise unknown_name("method", name, names)
    numbers = _numbers("--seeds", seeds) if seeds else [run.seed for run in runs]
    chosen = imagenet.trainings([run for run in runs if run.name in (wanted or names) and run.seed in numbers])
    for training in chosen.values():
        outcome = train(training, run_folder(training), progress=False, scale=scale)
        if is_first_rank():
            _say_trained(outcome)


@command()
def plan(
    profile: Profile = "paper",
    seconds: Annotated[float, typer.Option(help="How long this machine is measured.", min=0)] = 3.0,
) -> None:
    """Estimate hours, memory and disk of notebook 04's profile before it starts."""
    from rich.console import Console

    from pudnet_lib.results import device_name
    from pudnet_lib.studies import imagenet

    runs, size = imagenet.planned(known_profile(profile))
    with Console(stderr=True).status("Counting the work, measuring this machine"):
        work = imagenet.work(runs)
        rate = imagenet.measured_rate(next(iter(imagenet.trainings(runs).values())), seconds)
    total, images = sum(row["flops"] for row in work), {"imagenet": 1_331_167, "tiny-imagenet": 110_000}
    disk = images.get(size["source"], 0) * 3 * size["pixels"] ** 2 / 1e9
    memory = max(row["memory_gb"] for row in work)
    ranks = "torchrun --nproc-per-node 8 -m pudnet_lib" if size["per_step"] % 8 == 0 else "pudnet"
    typer.echo(f"Profile {profile}: {size['source']} at {size['pixels']} pixels, {total / 1e15:,.3f} PFLOP")
    typer.echo(f"  {device_name()[:60]}: {total / rate / 3600:,.2f} h at {rate / 1e9:,.1f} GFLOP/s, measured")
    typer.echo(f"  H100: {total / imagenet.H100 / 3600:,.2f} h at best ({imagenet.H100 / 1e12:.0f} TFLOP/s, gpu.json)")
    typer.echo(f"  {disk:.1f} GB of prepared images on disk; {memory:.1f} GB a rank in 32 bit")
    typer.echo(f"  start: {ranks} imagenet-train --profile {profile}\n\nEvery meta-training run:")
    for row in work:
        typer.echo(f"  {row['run'][:34]:34} {row['steps']:>7,} steps {row['flops'] / 1e15:12.4f} PFLOP")


@command()
def datasets(
    names: Annotated[list[str] | None, typer.Argument(help="Names or folders to count; by default none.")] = None,
    long: Annotated[bool, typer.Option("--long", help="Licence, place and how to get it, too.")] = False,
) -> None:
    """List the image datasets that are known by name; any folder of images is one, too."""
    from rich.console import Console
    from rich.table import Table

    from pudnet_lib.images import list_sources, load_images
    from pudnet_lib.images.cache import data_folder

    width = None if sys.stdout.isatty() else 400  # in a file or a pipe a cell cut in lines could not be searched
    console, made = Console(markup=False, highlight=False, width=width), Table(box=None, pad_edge=False)
    more = ("size", "there", *(("licence", "place", "how to get it") * long))
    for header in ("name", "classes", "images", *(("images a class", "licence") if names else more)):
        made.add_column(header, overflow="fold", justify="right" if header in ("classes", "images") else "left")
    if names:
        for data in (load_images(name, split="all") for name in names):
            each = f"{int(data.class_counts().min())} to {int(data.class_counts().max())}"
            made.add_row(data.name, f"{data.num_classes:,}", f"{len(data):,}", each, data.licence)
        console.print(made)
        return
    for kind in dict.fromkeys(s.kind for s in list_sources()):
        for s in (s for s in list_sources() if s.kind == kind):
            more = (s.licence, s.place.removeprefix(str(data_folder())).lstrip("/\\"), s.how_to_get) * long
            made.add_row(s.name, f"{s.classes:,}", f"{s.images:,}", s.size, "yes" if s.available else "no", *more)
        made.add_section()
    console.print(made)
    console.print(f"\nPlaces (--long lists them) are in the package, or below {data_folder()}")
    console.print("(PUDNET_DATA names another). Any folder of class folders loads by its path, too.")


@command()
def prepare(
    source: Annotated[str, typer.Argument(help="A name of `pudnet datasets`, or an image folder.")],
    sizes: Annotated[str, typer.Option(help="Heights in pixels, one file each.", metavar="N,…")] = "84",
    channels: Annotated[int, typer.Option(help="1 (gray) or 3 (RGB).")] = 3,
    workers: Annotated[int, typer.Option(help="Threads; 0 for one more than there are cores.", min=0)] = 0,
    only_estimate: Annotated[bool, typer.Option("--estimate", help="Print space and time, and stop.")] = False,
    on_error: OnError = "stop",
) -> None:
    """Decode a large image folder (ImageNet-1K, say) once, in parallel; a run that was cut off goes on."""
    from pudnet_lib.images.reading import Reading, estimate, prepare
    from pudnet_lib.images.sources import find_folder, listed

    wanted = _numbers("--sizes", sizes)
    listing = listed(source)
    for size in wanted:
        how = Reading(size, channels, on_error=_on_error(on_error), workers=workers)
        typer.echo(f"{listing.name} at {size} pixels: {estimate(listing, how)} in all")
        if not only_estimate:
            typer.echo(str(prepare(listing, find_folder(source)[0], how)))
