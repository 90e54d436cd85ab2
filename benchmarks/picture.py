"""Draws early-stop step and test accuracy against the weights that remain, ticket beside control (LTH Fig. 1 and 4).

python -m benchmarks.picture docs/results/lenet.csv docs/results/lenet.png
"""

import argparse

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLES = {"ticket": ("#0072b2", "-", "winning ticket"), "random_reinit": ("#d55e00", "--", "same mask, random reinit")}
PANELS = {"early_stop_step": "early-stop step", "early_stop_test_acc": "test accuracy at early stop (%)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a run's results.csv")
    parser.add_argument("picture", help="the PNG to write")
    options = parser.parse_args()
    table = pd.read_csv(options.table)
    table = table[table.status == "ok"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
        scale = 100 if column.endswith("acc") else 1
        for arm, (colour, dash, label) in STYLES.items():
            points = (
                table[table.arm == arm].groupby("density")[column].agg(["mean", "min", "max", "count"]).sort_index()
            )
            if points.empty:
                continue
            mean = points["mean"] * scale
            spread = [mean - points["min"] * scale, points["max"] * scale - mean]
            trials = int(points["count"].max())
            axis.errorbar(
                points.index * 100, mean, spread, color=colour, ls=dash, capsize=2, label=f"{label} (n={trials})"
            )
        axis.set_xscale("log")
        axis.invert_xaxis()
        ticks = [100, 51.3, 21.1, 8.7, 3.6]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("percent of weights remaining")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
