"""How much of the picture is in what is sent of h, and how much of that does the task not need?"""

from collections.abc import Sequence

from evaluations.charts import rate_chart
from evaluations.figures import layers_grid
from evaluations.rates import RatesResult, points_of
from evaluations.report.arrays import checked
from evaluations.report.cells import NONE, nce, number, share
from evaluations.report.page import Grid, Part, Picture, Section, Table
from evaluations.report.tested_runs import AnyRun, InverterRun, inverters

WORDS = (
    "Between layer and inverter not all of h is sent. One inverter was trained on all these rates, each image at one "
    "drawn at random, and is told which; all rows are of the same test images, and differences are paired. Accuracy is "
    "that of the network itself, whose later layers are given what is sent in place of their own h. NCE is what this "
    "inverter reads: another may read more, so that it proves what is in the stream, and never that the rest is safe."
)


def section(runs: Sequence[AnyRun]) -> Section | None:
    sending = [run for run in inverters(runs) if run.result.channel]
    if not sending:
        return None
    parts: list[Part] = []
    for run in sending:
        for found in run.measured(RatesResult):
            parts += _curve(run, found)
    rows = [
        [str(run.folder), str(run.result.layer), str(run.result.channel), str(run.result.rate), nce(run.result),
         share(run.result.class_agreement, run.result.num_samples)]
        for run in sending
    ]  # fmt: skip
    header = ["run", "layer", "sent by", "tested at", "NCE, nats", "class agreement of draws"]
    parts.append(Table("Inverters of what is sent, as they were tested.", header, rows))
    return Section("What is sent of h", [WORDS, *parts])


def _curve(run: InverterRun, found: RatesResult) -> list[Part]:
    rates, whole = found.rates, found.accuracy
    accuracy = [(r.bits, 100 * r.accuracy) for r in rates if r.accuracy is not None]
    figure = rate_chart(points_of(found), found.prior_nce_nats, accuracy, None if whole is None else 100 * whole)
    caption = (
        f"{found.name}, {found.layer}: what is read of the picture, and accuracy, against the bits that are sent. Bars "
        f"are of one standard error of a paired difference: to the last rate, and of what was trained alone to the one "
        f"inverter. Bits are {found.counted}."
    )
    header = [
        "sent", "bits", "nominal bits", "NCE, nats", "more than the row above", "accuracy, %", "same class, %",
        *(["trained at it alone, NCE", "less this one, paired"] if any(r.alone for r in rates) else []),
    ]  # fmt: skip
    rows = []
    if found.prior_nce_nats is not None:
        first = ["nothing: p(x)", "0", "0", number(found.prior_nce_nats, found.prior_nce_nats_se)]
        rows.append([*first, *[NONE] * (len(header) - 4)])
    for k, r in enumerate(rates):
        gain = (r.gain_nats, r.gain_nats_se) if k else (found.gain_of_first_nats, found.gain_of_first_nats_se)
        row = [r.called, number(r.bits, digits=1), number(r.nominal_bits, digits=0), number(r.nce_nats, r.nce_nats_se)]
        row += [number(*gain), _percent(r.accuracy), _percent(r.agreement)]
        if any(r.alone for r in rates):
            a = r.alone
            row += [number(a.nce_nats, a.nce_nats_se), number(a.less_nats, a.less_nats_se)] if a else [NONE, NONE]
        rows.append(row)
    of = "" if whole is None else f" With all of h its accuracy is {whole:.1%}."
    table = Table(f"{found.num_images} test images of {found.name}.{of}", header, rows)
    return [found.sentence, Picture(caption, figure), table, *_grid(run, found)]


def _grid(run: InverterRun, found: RatesResult) -> list[Part]:
    arrays = run.compared(found)
    if arrays is None:
        return []
    checked(arrays, run.folder / "rates.npz", ("inputs", "draws_at_rates", "shown"))
    draws, shown = arrays["draws_at_rates"], arrays["shown"].tolist()
    columns = {
        f"{found.rates[k].called}, {found.rates[k].bits:.0f} bits": draws[:, place] for place, k in enumerate(shown)
    }
    words = "Test images, and draws given what is sent of h at some of the rates. The noise is the same for all."
    return [Grid(words, layers_grid(arrays["inputs"], columns), arrays["inputs"], columns)]


def _percent(value: float | None) -> str:
    return NONE if value is None else number(100 * value, digits=1)
