"""Lightning's Trainer with the verbs that ask a trained inverter, and one that shows the data."""

import csv
import io
import signal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from callbacks.atomic import json_bytes, npy_bytes, write_all, write_figure
from callbacks.datamodule import first_images
from callbacks.distances import measured_distances, raw_h
from callbacks.processes import in_order, share
from evaluations.estimators import all_estimates
from evaluations.figures import contact_sheet, sample_grid
from inverters.checkpoints import load_checkpoint
from inverters.inverter import Inverter
from inverters.representation import digest


class Trainer(pl.Trainer):
    """Lightning's, with five more verbs."""

    def show(self, model: pl.LightningModule, datamodule: Any, split: str = "train", num_images: int = 60) -> None:
        """Make a contact sheet of the data, with labels, as the model sees it.

        Args:
            model: Not asked.
            datamodule: The data.
            split: train, val or test.
            num_images: On the sheet, from the start of the split.
        """
        datamodule.prepare_data()
        datamodule.setup("fit")
        if split not in datamodule.datasets:
            raise ValueError(f"no split {split!r}; there are {', '.join(datamodule.datasets)}")
        batch = first_images(datamodule.datasets[split], num_images)
        labels = [datamodule.class_names[label] for label in batch["label"].tolist()]
        path = Path(self.default_root_dir) / f"contact_sheet_{split}.png"
        write_figure(path, contact_sheet(batch["image"], labels))
        sizes = ", ".join(f"{name} {len(images)}" for name, images in datamodule.datasets.items())
        print(f"{datamodule.name}: {sizes} images of {list(datamodule.image_shape)}; {path}")

    def _restored(self, model: pl.LightningModule, ckpt_path: str) -> Inverter:
        if not isinstance(model, Inverter):
            raise ValueError(f"this needs an inverter's config; {type(model).__name__} has no p(x | h)")
        checkpoint = load_checkpoint(ckpt_path)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        return model.to(self.strategy.root_device).eval()

    def sample(
        self,
        model: pl.LightningModule,
        datamodule: Any,
        ckpt_path: str | None = None,
        num_images: int = 8,
        num_draws: int = 4,
        seed: int = 0,
    ) -> None:
        """Draw from p(x | h) for the first test images.

        Args:
            model: The inverter.
            datamodule: Its data.
            ckpt_path: A file, or best or last of the newest run; best by default.
            num_images: Rows of the grid.
            num_draws: Draws a row.
            seed: Of the noise, which is a function of (seed, image, draw).
        """
        inverter = self._restored(model, str(ckpt_path))
        datamodule.prepare_data()
        datamodule.setup("test")
        batch = first_images(datamodule.datasets["test"], num_images)
        folder = Path(self.default_root_dir)
        images, index = share(self, batch["image"]).to(inverter.device), share(self, batch["index"].tolist())
        finished: list[Tensor] = [images.new_empty(0, *images.shape[1:]).cpu()]
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # which raises KeyboardInterrupt
        try:
            for drawn in inverter.draw_batches(images, index, num_draws, seed):
                finished.append(drawn.cpu())
        except KeyboardInterrupt:
            kept = ""
            if len(finished) > 1:
                # Image i of a process is image (rank + world_size i) of the test set.
                process = f"_of_process_{self.global_rank}" if self.world_size > 1 else ""
                path = folder / f"draws_finished{process}.npy"
                write_all({path: npy_bytes(torch.cat(finished).numpy())})
                kept = f"; they are kept in {path}, draw j of image i at {num_draws} i + j"
            print(f"\ninterrupted with {sum(map(len, finished))} draws finished{kept}")
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        draws = in_order(self, torch.cat(finished).unflatten(0, (-1, num_draws)))
        if not self.is_global_zero:
            return
        inputs = batch["image"].cpu().numpy()
        write_all({folder / "draws.npy": npy_bytes(draws.numpy()), folder / "inputs.npy": npy_bytes(inputs)})
        write_figure(folder / "draws.png", sample_grid(batch["image"], draws, inverter.representation.layer))
        print(f"{len(draws)} images, {num_draws} draws each: {folder / 'draws.png'}; as arrays draws.npy, inputs.npy")

    def score(
        self,
        model: pl.LightningModule,
        datamodule: Any,
        images: list[str],
        contexts: list[str] | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Print log p(x_i | h_j) in nats, for image files i and the representations of image files j.

        Args:
            model: The inverter.
            datamodule: Gives the shape of the images.
            images: Files of the size that the inverter knows.
            contexts: Likewise; without them each image is scored under its own representation.
            ckpt_path: A file, or best or last of the newest run; best by default.
        """
        if not images:
            raise ValueError("no images to score; give --images '[a.png, b.png]'")
        inverter = self._restored(model, str(ckpt_path))
        x = load_images(images, datamodule.image_shape).to(inverter.device)
        h = load_images(contexts, datamodule.image_shape).to(inverter.device) if contexts else x
        with torch.no_grad():
            if contexts:
                columns = [inverter.log_prob({"image": x, "context_image": row.expand_as(x)}) for row in h]
                matrix = torch.stack(columns, dim=1)  # [N, M]
            else:
                matrix = inverter.log_prob({"image": x})[:, None]
        header = ["image", *(f"log p(x | h of {name}), nats" for name in contexts or ["itself"])]
        rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(images, matrix.tolist(), strict=True)]
        path = Path(self.default_root_dir) / "scores.csv"
        text = io.StringIO()
        csv.writer(text).writerows([header, *rows])
        write_all({path: text.getvalue().encode()})
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in [header, *rows]:
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        print(f"as CSV: {path}")

    def distances(
        self,
        model: pl.LightningModule,
        datamodule: Any,
        ckpt_path: str | None = None,
        num_images: int = 500,
        num_samples: int = 10,
        num_queries: int = 4,
        num_candidates: int = 1024,
        space: Literal["layer", "pixels"] = "layer",
        seed: int = 0,
    ) -> None:
        """Measure how near samples come to their input in the layer's space (Nash et al. 2019, table 1 and fig 2).

        Args:
            model: The inverter.
            datamodule: Its data.
            ckpt_path: A file, or best or last of the newest run; best by default.
            num_images: Test images, the first in their seeded order.
            num_samples: Of each.
            num_queries: Test images whose nearest samples and training images are shown.
            num_candidates: Samples of each of those.
            space: In which they are nearest: by h, or by pixels.
            seed: Of the noise, which is a function of (seed, image, draw).
        """
        inverter = self._restored(model, str(ckpt_path))
        datamodule.prepare_data()
        datamodule.setup("fit")
        folder = Path(self.default_root_dir)
        row = measured_distances(
            self, inverter, datamodule.datasets, folder.parent, num_images, num_samples, num_queries, num_candidates,
            space, seed,
        )  # fmt: skip
        if not self.is_global_zero:
            return
        print(f"{row['name']}, {row['num_images']} test images, {row['num_samples']} samples each, {row['unit']}")
        for name, words in (("one_nn", "1NN   nearest training image"), ("im_s", "IM-S  a sample"),
                            ("im_nn", "IM-NN nearest sample")):  # fmt: skip
            ratio = f"; {row[f'{name}_ratio']:.3f} of 1NN" if name != "one_nn" else ""
            print(f"  {words:30} {row[name]:.4g} (standard error {row[f'{name}_se']:.2g}){ratio}")
        print(f"  numbers and images             {folder.parent}/distances.json, distances.npz, nearest.npz")

    def estimators(
        self, model: pl.LightningModule, datamodule: Any, ckpt_path: str | None = None, num_images: int = 10_000
    ) -> None:
        """What other estimators say of the same layer: binning, kernel density, k nearest neighbours.

        Args:
            model: The inverter; only its classifier is asked.
            datamodule: Its data.
            ckpt_path: A file, or best or last of the newest run; best by default.
            num_images: Test images, the first in their seeded order.
        """
        inverter = self._restored(model, str(ckpt_path))
        datamodule.prepare_data()
        datamodule.setup("test")
        images = first_images(datamodule.datasets["test"], num_images)["image"]
        h = raw_h(inverter, images)
        rows = [row | {"network_digest": digest(inverter.representation.network)} for row in all_estimates(h)]
        path = Path(self.default_root_dir).parent / "estimators.json"
        write_all({path: json_bytes(rows)})
        print(f"{inverter.representation.layer} of {len(images)} test images, nats; in {path}")
        for row in rows:
            print(f"  {row['estimator']:40} {row['estimate_nats']:.2f}")


def load_images(paths: list[str], image_shape: tuple[int, int, int]) -> Tensor:
    """Image files as uint8 [N, C, H, W]. Raises OSError or ValueError naming the file that cannot be used."""
    channels, height, width = image_shape
    images = []
    for path in paths:
        try:
            picture = Image.open(path).convert("L" if channels == 1 else "RGB")
        except OSError as error:
            raise OSError(f"cannot read {path} as an image: {error}") from error
        if picture.size != (width, height):
            raise ValueError(f"{path} is {picture.width}x{picture.height} pixels; this inverter takes {width}x{height}")
        images.append(torch.from_numpy(np.array(picture)).view(height, width, channels).permute(2, 0, 1))
    return torch.stack(images)
