"""How few bytes are images, given h? The proof of -log p(x | h): a file from which they come back bit for bit."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from jsonargparse.typing import PositiveInt

from commands.score import load_images
from commands.trained_inverter import NO_H_OF_X, in_parts, trained_inverter
from datamodules import ImageDataModule
from datamodules.split import seen
from evaluations.measurements import CompressionResult
from evaluations.other_formats import sizes
from inverters.compressed_file import compressed, received
from inverters.generators import bits_per_dim
from inverters.representation import digest
from runtime.files import json_bytes, npy_bytes, write_all
from runtime.run import Run


def compress(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    datamodule: ImageDataModule,
    images: list[str] | str | None = None,
    num_images: PositiveInt = 500,
    output: str = "images.nats",
    ckpt_path: str | None = None,
) -> None:
    """Write images as a file of -log2 p(x | h) bits; decompress gets them back from it and h, bit for bit.

    h is written beside it, as NAME.h.npy: in split inference it is what the receiver has. Behind a channel that is what
    arrives of it, at the highest rate.

    Args:
        images: A picture, a list of pictures, or a folder or a .zip, of which all are taken; test images without.
        num_images: So many test images, the first in their seeded order.
        output: The file to write.
        ckpt_path: A file, or best or last of the newest run; best by default.

    Raises:
        ValueError: An image has no representation of its own, or the model cannot be coded by.
    """
    if images is not None and not images:
        raise ValueError("no images to compress; give --images '[a.png, b.png]', or none for test images")
    inverter, path = trained_inverter(trainer, model, datamodule, ckpt_path), Path(output)
    layer = inverter.representation.layer
    if images is None:
        datamodule.prepare_data()
        datamodule.setup("test")
        batch = datamodule.datasets["test"].first(num_images)
        image, pictures, what = batch["image"], seen(batch), "test images"
    else:
        if datamodule.has_partners and layer is not None:
            raise ValueError(f"{NO_H_OF_X.format(datamodule.name)}; compress test images, without --images")
        _, image, pictures = load_images(images, datamodule)
        what = "pictures"
    raw = in_parts(inverter.representation, inverter, pictures)
    h = received(inverter, raw)
    content = compressed(inverter, image, h)
    log_prob = torch.cat([
        inverter.log_prob_in_parts({"image": x.to(inverter.device), "h": its.to(inverter.device)}).cpu()
        for x, its in zip(image.split(250), raw.split(250), strict=True)
    ])  # fmt: skip
    alone, mosaic = sizes(image.cpu().numpy())
    run, channel = Run.of_trainer(trainer), inverter.channel
    h_path = path.with_suffix(".h.npy") if path.suffix == ".nats" else Path(f"{path}.h.npy")  # others may share a stem
    result = CompressionResult(
        name=run.name, layer=layer, num_images=len(image), num_dims=image[0].numel(), num_bytes=len(content),
        ideal_bytes=float(bits_per_dim(log_prob, 8).sum()), h_bytes=h.nbytes, alone_bytes=alone, mosaic_bytes=mosaic,
        network_digest="" if layer is None else digest(inverter.representation.network),
        density_digest=digest(inverter.density),
        rate=None if channel is None else channel.name_of(inverter.rate),
        sent_bits=None if channel is None else float(channel.sent_bits[inverter.rate]),
    )  # fmt: skip
    write_all({path: content} | ({} if layer is None else {h_path: npy_bytes(h.numpy())}))
    if images is None:
        run.write({"compression.json": json_bytes(result.to_json())})
    print(f"{result.name}, {result.num_images} {what} of {'x'.join(map(str, image.shape[1:]))}")
    rows: list[tuple[str, float]] = [(f"{path}", result.num_bytes), ("-log2 p(x | h)", result.ideal_bytes)]
    rows += [(f"{name}, a file each", size) for name, size in alone.items()]
    rows += [(f"{name}, one mosaic", size) for name, size in mosaic.items()]
    width = max(len(name) for name, _ in rows)
    for name, size in rows:
        each, bits = size / result.num_images, result.bits_per_dim(size)
        print(f"  {name:{width}}  {size:12,.1f} bytes  {each:9.2f} an image  {bits:.4f} bits/dim")
    if channel is not None:
        print(f"  what arrives of h, at {result.rate}, is no part of it: {h_path}")
        print(f"  of which {result.sent_bits:,.1f} bits an image are sent: {channel.counted}")
    elif layer is not None:
        print(f"  h, which is no part of it, is {result.h_bytes:,} bytes: {h_path}")
    more = "" if layer is None else f" --h {h_path}"
    print(f"  get them back with: python cli.py decompress --config ... --input {path}{more} --output FOLDER")
