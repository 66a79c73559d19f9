"""The preflight as tables for a terminal: readable at 80 columns, and nothing in them drives the terminal."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vfl.io.layers import layer_list
from vfl.io.sizes import size_text
from vfl.train.preflight.audit import AuditRow, LossAudit, visible
from vfl.train.preflight.facts import (
    ArmFacts,
    DataFacts,
    GrpoFacts,
    MemoryFacts,
    Preflight,
    SampledQuestion,
    SetFacts,
    TimeEstimate,
)
from vfl.train.preflight.lengths import LengthHistogram, bars
from vfl.train.preflight.processes import LaunchFacts

SHOWN = 3  # rows of the audit on a terminal; preflight.json has all
LONGEST_TEXT = 160  # characters of a prompt's end or an answer
LABEL = 10  # columns


def print_preflight(flight: Preflight, console: Console) -> None:
    """Tables for a terminal of 80 columns and more."""
    for section in _sections(flight):
        console.print(section)


def _sections(flight: Preflight) -> list[RenderableType]:
    """Model and arm, modules, data, lengths, audit, run; warnings last, where they are seen."""
    parts: list[RenderableType] = [_model(flight), _modules(flight)]
    if flight.lengths is not None:
        parts.append(_lengths(flight.lengths))
    if flight.audit is not None:
        parts.append(_audit(flight.audit))
    if flight.grpo is not None:
        title = Text("Sampled before training, with what each answer earns:", style="bold")
        parts.append(Group(title, *map(_sampled, flight.grpo.questions), Text()))
    parts.append(_run(flight))
    if flight.warnings:
        parts.append(_pairs([("Warning", text) for text in flight.warnings], style="yellow"))
    return parts


def duration_text(seconds: float) -> str:
    """4000 -> "1 h 7 min"; 0.25 -> "0.25 s"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def data_text(data: DataFacts) -> str:
    """What was read, what was left out, and what kinds of rows there are."""
    left = [f"{count:,} {what}" for count, what in ((data.bad, "unreadable"), (data.too_long, "too long")) if count]
    kinds = [
        f"{count:,} {what}"
        for count, what in (
            (data.text_only, "of text alone"),
            (data.multi_turn, "with several turns"),
            (data.multi_image, "with several images"),
        )
        if count
    ]
    text = f"{data.used:,} of {data.rows:,} rows"
    text += f", skipped: {', '.join(left)}" if left else ""
    text += f"; {', '.join(kinds)}" if kinds else ""
    text += f"; {data.weighed:.1%} of the answer tokens have a weight" if data.weighed is not None else ""
    if data.desirable is not None:
        text += f"; {data.desirable:,} with a good answer, {data.used - data.desirable:,} with a bad one"
    epoch = data.new + data.replay + data.anchors
    text += "".join(f"; {_set_text(each, epoch)}" for each in data.sets)
    for count, what in ((data.replay, "old rows replayed"), (data.anchors, "anchor rows")):
        text += f"; {count:,} {what} in each epoch, {count / epoch:.1%} of it" if count else ""
    return text


def system_text(data: DataFacts) -> str:
    """The system prompt of every row, and what it took the place of."""
    return (
        f"“{data.system_prompt}”, added to {data.system_added:,} rows, in place of {data.system_replaced:,} rows' own"
    )


def _set_text(each: SetFacts, epoch: int) -> str:
    """What an epoch has of one of several sets."""
    times = "once each" if each.drawn == each.used else f"{each.drawn / each.used:.3g} times its {each.used:,}"
    return f"{each.drawn:,} rows of {each.name} in each epoch, {each.drawn / epoch:.1%} of it ({times})"


def memory_text(memory: MemoryFacts) -> str:
    device = "" if memory.device_bytes is None else f" of {size_text(memory.device_bytes)}"
    what = "pack" if memory.packed else "row"
    rows = f"1 {what}" if memory.rows == 1 else f"{memory.rows} {what}s"
    return f"{size_text(memory.peak_bytes)}{device} at the peak of {rows} of {memory.tokens:,} tokens ({memory.how})"


def time_text(time: TimeEstimate) -> str:
    parts = f"{time.steps:,} steps x {duration_text(time.step_seconds)}"
    if time.evaluations:
        parts += f" + {time.evaluations:,} evaluations x {duration_text(time.evaluation_seconds)}"
    return f"about {duration_text(time.total_seconds)}, an estimate: {parts}, from {time.how}"


def batch_text(launch: LaunchFacts) -> str:
    rows = f"{launch.global_batch:,} {launch.unit}"
    if launch.generations > 1:
        rows += f" ({launch.generations} to a question)"
    return (
        f"{rows} a step = {launch.micro_batch} a process x {launch.accumulation} accumulated "
        f"x {launch.world_size} process{'' if launch.world_size == 1 else 'es'}"
    )


def steps_text(launch: LaunchFacts) -> str:
    packs = f" in {launch.packs:,} packs" if launch.packs else ""
    steps = f"{launch.total_steps:,} = {launch.epochs:g} epochs of {launch.steps_per_epoch:,}"
    return f"{steps} over {launch.rows:,} rows{packs}"


def processes_text(launch: LaunchFacts) -> str:
    if launch.backend is None:
        text = "one process"
    else:
        text = f"{launch.world_size} processes ({launch.local_world_size} on this machine), {launch.backend}"
    if launch.fsdp:
        return f"{text}, the layers' frozen weights spread over them (FSDP2)"
    if launch.zero is None:
        return text
    zero = launch.zero
    pairs = (("optimizer", zero.offload_optimizer), ("parameters", zero.offload_parameters))
    offload = [f"{what} offloaded to {where}" for what, where in pairs if where]
    return ", ".join([text, f"DeepSpeed ZeRO-{zero.stage}", *offload])


def device_text(launch: LaunchFacts) -> str:
    names = [device.name for device in launch.devices]
    kinds = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    free = min((device.free_bytes for device in launch.devices), default=0)
    total = min((device.total_bytes for device in launch.devices), default=0)
    precision = "" if launch.mixed_precision == "no" else f", mixed precision {launch.mixed_precision}"
    return f"{launch.device}: {', '.join(kinds)}; {size_text(free)} of {size_text(total)} free{precision}"


def model_text(flight: Preflight) -> str:
    model = flight.model
    bed = ", a test bed" if model.test_bed else ""
    return (
        f"{model.id} ({model.family}{bed}), {model.num_layers} layers, {model.dtype}, {model.attention}; "
        f"{model.parameters:,} parameters, {size_text(model.bytes)}"
    )


def sampling_text(grpo: GrpoFacts) -> str:
    """What is sampled."""
    return (
        f"{grpo.generations} to each question, {grpo.together:,} at a time, of at most {grpo.longest:,} tokens, at "
        f"temperature {grpo.temperature:g}"
    )


def reward_text(grpo: GrpoFacts, matches: Mapping[str, int]) -> str:
    """What it is rewarded for, and what that was before training."""
    parts = ", ".join(f"{weight:g} x {part}" for part, weight in grpo.rewards.items())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in matches.items())
    held = f"; KL term of weight {grpo.beta:g}" if grpo.beta else ""
    return (
        f"{parts}; rows by match: {kinds}; loss {grpo.loss}{held}. Before training {grpo.sampled} answers to the "
        f"longest questions earn {grpo.reward:.3g} on average"
    )


def arm_sentence(arm: ArmFacts) -> str:
    """Where was trained, in words: "in the decoder layers that serve counting"."""
    if arm.reason:
        return f"in the decoder layers that the rule {arm.arm} chose by the training rows"
    serve = f"that serve {listed(arm.functions)}" if arm.functions else "named in the recipe"
    return {
        "function": f"in the decoder layers {serve}",
        "full": "in all decoder layers",
        "reversed": f"in the decoder layers other than those {serve} (a control)",
        "random": f"in random decoder layers, as many as those {serve} (a control)",
    }.get(arm.arm, "in chosen decoder layers")


def listed(names: Sequence[str]) -> str:
    """("a", "b", "c") -> "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def arm_text(flight: Preflight) -> str:
    arm = flight.arm
    what = f"{arm.arm} ({', '.join(arm.functions)})" if arm.functions else arm.arm
    rank = "" if arm.rank is None else f", rank {arm.rank}"
    chosen = f", chosen by {arm.map_path}" if arm.map_path else ""
    return f"{what}: layers {layer_list(arm.layers)} of 0–{flight.model.num_layers - 1}{rank}{chosen}"


def backward_text(flight: Preflight) -> str:
    return f"{flight.cost}. {flight.checkpointing}"


def _model(flight: Preflight) -> RenderableType:
    rows = [("Method", flight.method), ("Model", model_text(flight)), ("Arm", arm_text(flight))]
    rows += [("Why", flight.arm.reason)] if flight.arm.reason else []
    rows += [("Protected", flight.arm.protected)] if flight.arm.protected else []
    rows += [("Frozen", flight.arm.frozen)] if flight.arm.frozen else []
    if flight.data.system_prompt is not None:
        rows.append(("System", system_text(flight.data)))
    if flight.grpo is not None:
        rows += [("Answers", sampling_text(flight.grpo)), ("Reward", reward_text(flight.grpo, flight.data.matches))]
    rows += [("Backward", backward_text(flight)), ("Data", data_text(flight.data))]
    rows += [("Streaming", flight.order.sentence)] if flight.order else []
    return _pairs([*rows, ("Packing", flight.packing)] if flight.packing else rows)


def _modules(flight: Preflight) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("adapted", "modules", "parameters", "bytes", "layers"):
        wraps = heading == "layers"
        table.add_column(heading, justify="left" if wraps or heading == "adapted" else "right", no_wrap=not wraps)
    for tower in flight.adapted:
        counts = (f"{tower.modules:,}", f"{tower.parameters:,}", size_text(tower.bytes))
        own = "" if tower.learning_rate is None else f"learning rate {tower.learning_rate:g}"
        table.add_row(*map(Text, (tower.tower, *counts, layer_list(tower.layers) if tower.layers else own)))
    share = flight.trainable_parameters / flight.model.parameters
    table.add_section()
    whole = (f"{flight.trainable_parameters:,}", size_text(flight.trainable_bytes), f"{100 * share:.2f} % of the model")
    table.add_row("trained", f"{sum(tower.modules for tower in flight.adapted):,}", *whole)
    return table


def _lengths(lengths: LengthHistogram) -> RenderableType:
    limit = "no limit" if lengths.limit is None else f"limit {lengths.limit:,}, {lengths.over:,} rows over it"
    text = Text(f"Tokens a row: {limit}", style="bold")
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(width=40, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for label, bar, rows in bars(lengths, width=40):
        table.add_row(label, bar, rows)
    quantiles = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("tokens", "least", "median", "90 %", "99 %", "most", "mean"):
        quantiles.add_column(heading, justify="left" if heading == "tokens" else "right", no_wrap=True)
    for name, part, colour in (
        ("all", lengths.total, ""),
        ("text", lengths.text, "cyan"),
        ("image", lengths.image, "blue"),
    ):
        counts = (f"{value:,}" for value in (part.least, part.median, part.p90, part.p99, part.most))
        quantiles.add_row(Text(name, style=colour), *counts, f"{part.mean:,.1f}")
    return Group(text, table, quantiles)


def _audit(audit: LossAudit) -> RenderableType:
    """The end of each prompt and, in green, what is learned."""
    title = Text(
        f"In the loss: {audit.loss_tokens:,} of {audit.tokens:,} tokens of {len(audit.rows)} rows; "
        f"none of the {audit.image_tokens:,} image tokens",
        style="bold",
    )
    return Group(title, *map(_audited, audit.rows[:SHOWN]), Text())


def _audited(row: AuditRow) -> RenderableType:
    prompt = visible(row.prompt_tail)
    shown = Text(f"{visible(row.where)}: ", style="dim")
    shown.append(f"…{prompt[-LONGEST_TEXT:]} " if len(prompt) > LONGEST_TEXT else f"{prompt} ", style="dim")
    answers = " … ".join(visible(answer) for answer in row.answers)
    shown.append(answers if len(answers) <= LONGEST_TEXT else answers[: LONGEST_TEXT - 1] + "…", style="green")
    shown.append(f" ({row.loss_tokens} of {row.tokens})", style="dim")
    return Padding(shown, (0, 0, 0, 2))


def _sampled(question: SampledQuestion) -> RenderableType:
    """The end of a question, the right answer in green, and what the model said to it."""
    shown = Text(f"{visible(question.where)}: ", style="dim")
    shown.append(f"…{visible(question.prompt_tail)[-LONGEST_TEXT:]} ", style="dim")
    shown.append(visible(question.expected)[:LONGEST_TEXT], style="green")
    shown.append(f" ({question.match})", style="dim")
    for text, reward in list(zip(question.sampled, question.rewards, strict=True))[:SHOWN]:
        shown.append(f"\n{reward:g}  {visible(text)[:LONGEST_TEXT]}")
    return Padding(shown, (0, 0, 0, 2))


def _run(flight: Preflight) -> RenderableType:
    rows = [
        ("Processes", processes_text(flight.launch)),
        ("Device", device_text(flight.launch)),
        ("Batch", batch_text(flight.launch)),
        ("Steps", steps_text(flight.launch)),
    ]
    rows += [("Memory", memory_text(flight.memory))] if flight.memory else []
    rows += [("Time", time_text(flight.time))] if flight.time else []
    return _pairs(rows)


def _pairs(rows: list[tuple[str, str]], style: str = "") -> RenderableType:
    """A label and what it says; long texts wrap beside the label."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=LABEL, no_wrap=True, style=style or "bold")
    table.add_column(overflow="fold", style=style)
    for label, text in rows:
        table.add_row(label, Text(visible(text)))
    return table
