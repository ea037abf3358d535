"""What all tested runs say together, as the sections of a report."""

from collections.abc import Sequence

from evaluations.estimators import Breakdown
from evaluations.report import (
    about,
    accuracy,
    budgets,
    compared,
    compression,
    configs,
    differences,
    dynamics,
    headline,
    kept,
    ledgers,
    made,
    maps,
    nearest,
    networks,
    other_estimators,
    other_settings,
    over_layers,
    rates,
    references,
    table_1,
    training,
    worlds,
)
from evaluations.report.groups import grouped
from evaluations.report.page import Section
from evaluations.report.tested_runs import AnyRun


def sections(runs: Sequence[AnyRun], breakdown_rows: Sequence[Breakdown]) -> list[Section]:
    """Everything that was measured, and nothing else: a section without data does not appear."""
    lines = budgets.lines_of(runs)
    by_budget, shorter = budgets.budgets_of(lines), budgets.shorter(lines)
    runs = [run for run in runs if run.folder not in shorter]
    groups = grouped(runs)
    found = [
        *map(headline.section, groups),
        about.section(runs),
        worlds.section(runs),
        accuracy.section(runs),
        *(kept.section(group, by_budget) for group in groups),
        *map(maps.section, groups),
        *map(training.section, groups),
        *map(budgets.section, by_budget),
        over_layers.section(groups),
        differences.section(runs),
        compared.section(runs),
        ledgers.section(runs),
        rates.section(runs),
        table_1.section(groups),
        *map(nearest.section, groups),
        *map(networks.section, groups),
        *map(other_settings.section, groups),
        *dynamics.sections_by_data_set(runs, groups),
        other_estimators.section(groups, breakdown_rows),
        compression.section(groups),
        made.section(runs),
        configs.section(runs),
        references.section(),
    ]
    return [section for section in found if section is not None]
