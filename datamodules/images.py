"""What every data set has in common: three splits of uint8 images, loaders, and an identity."""

import inspect
import json
import signal
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning import LightningDataModule
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from datamodules.attributes import Attribute
from datamodules.pictures import of_its_size
from datamodules.split import Batch, ImageDataset, Split

NOT_OF_CLASSIFIERS = ("num_train", "left_out_classes")  # of what is trained on, which only an inverter may not see


def _as_is(batch: Any) -> Batch:
    """The collate function: `__getitems__` has already made the batch."""
    return batch


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to the whole job must not end its loader processes before the run has saved its checkpoint."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class ResumableSampler(DistributedSampler[int]):
    """One process's share of every epoch, in an order that is a function of (seed, epoch).

    The first pass begins where a resumed run was stopped; its length is that of a whole epoch all the same, as
    Lightning counts the batches that were done too.

    Args:
        epoch: Of the first pass.
        num_done: Of this process's images in the first pass.
    """

    def __init__(self, dataset: Split, world_size: int, rank: int, seed: int, epoch: int, num_done: int) -> None:
        super().__init__(dataset, world_size, rank, shuffle=True, seed=seed)
        self.set_epoch(epoch)
        self.num_done = num_done

    def __iter__(self) -> Iterator[int]:
        num_done, self.num_done = self.num_done, 0
        return islice(super().__iter__(), num_done, None)


class ImageDataModule(LightningDataModule):
    """Three splits of one image data set.

    The constructors keep the arguments of lightning-bolts' VisionDataModule where they make sense here. An argument
    of a subclass is kept as an attribute of its own name, so that `identity` finds it.

    Args:
        batch_size: The global batch; every process takes its share.
        eval_batch_size: A process's batch without gradients.
        seed: Of splits and of the order of the images, which is a function of (seed, epoch).
        num_workers: Loader processes. The images are in memory, so none is fastest.
        pin_memory: For the copy to a GPU.
        on_device: Keep the images on the GPU, and take the batches there, where there are no loader processes and all
            images take less than a quarter of the GPU's free memory.
        left_out_classes: Train and validate without the images of these classes, so that those of the test are of
            classes that no training has seen. A classifier that is trained on the way has all classes.
    """

    name: str  # of the data set, as results give it
    image_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    note: str | None = None  # what a reader of its results must know
    has_partners: ClassVar[bool] = False  # whether h is of another picture, of which x says little
    # The arguments that say how images are read.
    LOADING: ClassVar[tuple[str, ...]] = ("batch_size", "eval_batch_size", "num_workers", "pin_memory", "on_device")
    # Those, where the files lie, and, of a subclass, what only chooses which images are tested.
    remedy: ClassVar[str] = ""  # where a checkpoint is of other data of the same name
    NOT_IDENTIFYING: ClassVar[tuple[str, ...]] = (*LOADING, "data_dir", "path")

    def __init__(
        self,
        batch_size: PositiveInt = 128,
        eval_batch_size: PositiveInt = 250,
        seed: int = 0,
        num_workers: NonNegativeInt = 0,
        pin_memory: bool = False,
        on_device: bool = True,
        left_out_classes: list[NonNegativeInt] | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.num_workers, self.pin_memory, self.on_device = num_workers, pin_memory, on_device
        self.left_out_classes = left_out_classes or None
        self.datasets: dict[str, Split] = {}  # after `setup`
        self.first_epoch = self.batches_done = 0  # of a resumed run
        self.companions = 0  # so many images more, in training, for each of `batch_size`; a fit sets it

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures of which h is taken."""
        return self.image_shape

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(C, H, W) of an image, and of what the network sees of it where that is not the image itself."""
        return [self.image_shape]

    @property
    def pictures_digest(self) -> str | None:
        """Of what decides which pictures x are, where others may have the same name; None where the name says it."""
        return None

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the K classes; their numbers, where a data set gives none."""
        return [str(label) for label in range(self.num_classes)]

    def attributes(self, split: str, batch: Batch) -> dict[str, Attribute]:
        """What is known of some images of a split beside their pixels, [B] of each; the class, where there are several.

        Args:
            split: "train", "val" or "test".
            batch: As the split gives it.
        """
        return {"class": Attribute("discrete", batch["label"], self.num_classes)} if self.num_classes > 1 else {}

    @property
    def place(self) -> str:
        """Where the files lie, for people."""
        return "no files: they come with a package, or are made when they are asked for"

    def picture(self, content: bytes) -> Tensor:
        """A picture file's bytes as an image of this data set, uint8 [C, H, W], prepared as those that are trained on.

        Raises:
            ValueError: It is of another size: nothing here says how it is brought to this one.
            Exception: Pillow promises no list of what a broken file raises.
        """
        return of_its_size(content, self.image_shape)

    def pictures(self, content: bytes) -> list[Tensor]:
        """Likewise, one of each of `shapes`."""
        return [self.picture(content)]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which image is where, as JSON has it: the arguments, and what a subclass adds."""
        arguments = {name: getattr(self, name) for name in self._identifying_arguments()}
        if not self.left_out_classes:  # which digests of identities had not
            del arguments["left_out_classes"]
        return json.loads(json.dumps(arguments))

    def _identifying_arguments(self) -> dict[str, Any]:
        """Their names, sorted, and their defaults."""
        return {name: default for name, default in self.arguments().items() if name not in self.NOT_IDENTIFYING}

    @classmethod
    def arguments(cls) -> dict[str, Any]:
        """The names of all that can be given, sorted, and their defaults."""
        constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
        parameters = [p for made in constructors for p in inspect.signature(made).parameters.values()]
        named = {p.name: p.default for p in reversed(parameters) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        return {name: named[name] for name in sorted(named.keys() - {"self"})}

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits "train", "val" and "test"; the last in a seeded random order and with `other_image`."""

    def setup(self, stage: str) -> None:
        """Raises ValueError where there are more processes than images to evaluate."""
        if self.datasets:
            return
        _ = self.identity  # an argument that it does not find is an error now, not at the first checkpoint
        self.datasets = self.load()
        if self.left_out_classes:
            self._leave_out_classes(set(self.left_out_classes))
        world, _ = self._replicas()
        for split, num_images in self._num_images(*self.datasets).items():
            if split != "train" and num_images < world:
                raise ValueError(
                    f"the {split} split of {self.name} has {num_images} images for {world} processes; start at most "
                    f"{num_images} (--trainer.devices)"
                )
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if self.on_device and self.num_workers == 0 and device.type == "cuda":
            num_bytes = sum(dataset.nbytes for dataset in self.datasets.values())
            if 4 * num_bytes < torch.cuda.mem_get_info(device)[0]:
                self.pin_memory = False  # nothing is left to copy
                for dataset in self.datasets.values():
                    dataset.to(device)

    def _leave_out_classes(self, classes: set[int]) -> None:
        """Raises ValueError where there are no such classes, or none would be left to train on."""
        said = f"left_out_classes is {sorted(classes)}, and {self.name} has the classes 0 to {self.num_classes - 1}"
        if max(classes) >= self.num_classes:
            raise ValueError(f"{said}; give some of these")
        if len(classes) == self.num_classes:
            raise ValueError(f"{said}, of which none would be left; give fewer")
        for name in ("train", "val"):
            split = self.datasets[name]
            if not isinstance(split, ImageDataset):
                raise ValueError(f"{said}, of images that are made when they are asked for; give a data set of files")
            left = self.datasets[name] = split.without(classes)
            if not len(left):
                raise ValueError(f"{said}, of which the {name} split has no other; give fewer")

    def generator(self) -> torch.Generator:
        """The random numbers of the splits, a function of the seed."""
        return torch.Generator().manual_seed(self.seed)

    def _replicas(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, sampler: DistributedSampler[int], batch_size: int) -> DataLoader[Batch]:
        return DataLoader(
            sampler.dataset, batch_size=batch_size, sampler=sampler, collate_fn=_as_is, num_workers=self.num_workers,
            pin_memory=self.pin_memory, persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
            generator=self.generator(),  # otherwise making an iterator would draw from the global random state
        )  # fmt: skip

    def check_processes(self, world: int) -> None:
        """Raises ValueError where the global batch does not divide among so many processes."""
        if self.batch_size % world:
            raise ValueError(
                f"data.batch_size {self.batch_size} does not divide among {world} processes; choose a multiple"
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        world, rank = self._replicas()
        self.check_processes(world)
        mine, train = self.batch_size * (1 + self.companions) // world, self.datasets["train"]
        sampler = ResumableSampler(train, world, rank, self.seed, self.first_epoch, self.batches_done * mine)
        return self._loader(sampler, mine)

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        sampler = UnrepeatedDistributedSampler(self.datasets[split], *self._replicas(), shuffle=False)
        return self._loader(sampler, self.eval_batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    predict_dataloader = test_dataloader

    def state_dict(self) -> dict[str, Any]:
        """Which data a checkpoint saw, and how far: the epoch, and its global batches that are done."""
        state: dict[str, Any] = {"dataset": self.name, "identity": self.identity, "has_partners": self.has_partners}
        if self.trainer is None:
            return state
        state["images"] = self._num_images("train", "val")
        loop = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        epoch = max(loop.epoch_progress.current.ready - 1, 0)
        if progress.is_last_batch:
            return {**state, "epoch": epoch + 1, "batches_done": 0}
        return {**state, "epoch": epoch, "batches_done": progress.current.processed}  # type: ignore[attr-defined] # of a subclass

    def _num_images(self, *splits: str) -> dict[str, int]:
        return {split: len(self.datasets[split]) for split in splits}

    def check(self, checkpoint: Mapping[str, Any], source: str | Path, classifier: bool = False) -> None:
        """Raises ValueError where a checkpoint has seen other data, or other parts of this data for training.

        Args:
            checkpoint: As Lightning saved it.
            source: What it is, for the message.
            classifier: It is a classifier's, whose inverters train on all images, whatever it saw of them.
        """
        ours = {"left_out_classes": None, **self.identity}
        ours = {key: value for key, value in ours.items() if not (classifier and key in NOT_OF_CLASSIFIERS)}
        for state in checkpoint.values():
            if not isinstance(state, dict) or "dataset" not in state:
                continue
            if state["dataset"] != self.name:
                raise ValueError(
                    f"{source} was trained on {state['dataset']}, not on {self.name}; give the config of that data"
                )
            # Up to version 0.4 the seed was all that was saved. An argument that came later had its default.
            theirs = state.get("identity") or {"seed": state.get("seed", self.seed)}
            defaults = self._identifying_arguments() if state.get("identity") else {}
            for key, value in ours.items():
                default = defaults.get(key, inspect.Parameter.empty)
                before = theirs.get(key, value if default is inspect.Parameter.empty else default)
                if before == value:
                    continue
                was, now = json.dumps(before), json.dumps(value)
                if key in self._identifying_arguments():
                    raise ValueError(
                        f"{source} was trained with --data.{key} {was}, not {now}, which gives other images or divides "
                        f"them differently into training and test; give --data.{key} {was}"
                    )
                raise ValueError(
                    f"{source} was trained on other data of the name {self.name}, with the {key.replace('_', ' ')} "
                    f"{was}, not {now}; give the data that it was trained on{self.remedy}"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError for the checkpoint of other data; where a training goes on, of another number of images."""
        self.check({"data": state_dict}, "the checkpoint")
        before, now = state_dict.get("images"), self._num_images("train", "val")
        if self.trainer and self.trainer.state.fn == TrainerFn.FITTING and before and before != now:
            raise ValueError(
                f"the checkpoint was trained with {before} images, not {now}; give the same data arguments"
            )
        self.first_epoch, self.batches_done = state_dict.get("epoch", 0), state_dict.get("batches_done", 0)
