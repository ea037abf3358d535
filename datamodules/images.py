"""What every data set has in common: uint8 images, three splits, batches as dictionaries."""

import inspect
import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from pytorch_lightning import LightningDataModule
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

ImagesAndLabels = tuple[Tensor, Tensor]  # uint8 [N, C, H, W], int64 [N]


class Batch(TypedDict, total=False):
    """Some images and what is known of them."""

    image: Tensor  # uint8 [B, C, H, W]
    label: Tensor  # int64 [B]
    index: Tensor  # int64 [B], where the image is in the data set's files
    position: Tensor  # int64 [B], where it is in its split; from a test split, as the next one
    other_image: Tensor  # uint8 [B, C, H, W], the next of the split, cyclically: to score an h of another image
    context_image: Tensor  # uint8 [B, C, H, W], of which h is taken instead of `image`; from a negative control
    h: Tensor  # [B, ...], what a network makes of `image`; where a callback has given the split its h


class Split(Dataset[Batch], ABC):
    """The images of one split, by position.

    Attributes:
        images: All of them, uint8 [N, C, H, W]; None where they are drawn when asked for.
        h: What a network makes of `images`, read by positions, [B, ...]; batches have it where it is set.
    """

    images: Tensor | None = None
    h: Any = None

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """A whole batch at once; the data loader prefers this where it exists."""

    def first(self, num_images: int) -> Batch:
        """The first images; all, where there are fewer."""
        return self.__getitems__(range(min(num_images, len(self))))

    def to(self, device: torch.device) -> None:
        """Keep on a device what is kept, and index it there."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))

    @property
    def num_bytes(self) -> int:
        """What the images take in memory."""
        return 0 if self.images is None else self.images.nbytes


class ImageDataset(Split):
    """Images in memory with their labels and their indices in the data set's files.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        index: int64 [N].
        with_other: Give `position` and `other_image` too.
    """

    images: Tensor

    def __init__(self, images: Tensor, labels: Tensor, index: Tensor, with_other: bool = False) -> None:
        assert images.dtype == torch.uint8
        assert len(images) == len(labels) == len(index)
        self.images, self.labels, self.index = images, labels, index
        self.with_other = with_other

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(positions, device=self.images.device)
        batch: Batch = {"image": self.images[chosen], "label": self.labels[chosen], "index": self.index[chosen]}
        if self.h is not None:
            batch["h"] = self.h[positions]
        if self.with_other:
            batch["position"] = chosen
            batch["other_image"] = self.images[(chosen + 1) % len(self)]
        return batch


def splits(images: Tensor, labels: Tensor, index: Mapping[str, Tensor]) -> dict[str, Split]:
    """A file's images, in the order that `index` gives for each split, [n], and "test" with `other_image`."""
    return {name: ImageDataset(images[i], labels[i], i, with_other=name == "test") for name, i in index.items()}


def class_balanced(labels: Tensor, index: Tensor, num_images: int | None) -> Tensor:
    """The first images of each class, equally many, of those in an order, `index` [n]; all of them for None.

    Raises:
        ValueError: There are not so many.
    """
    if num_images is None:
        return index
    ordered = labels[index]
    classes, counts = ordered.unique(return_counts=True)
    each, rest = divmod(num_images, len(classes))
    if rest or not 0 < each <= counts.min():
        raise ValueError(
            f"num_train {num_images} is not so many times {len(classes)} classes; choose a multiple of {len(classes)} "
            f"with at most {counts.min()} images a class"
        )
    return torch.cat([index[ordered == label][:each] for label in classes])


def _as_is(batch: Any) -> Batch:
    """The collate function: `__getitems__` has already made the batch."""
    return batch


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to the whole job must not end its loader processes before the run has saved its checkpoint."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class ResumableSampler(DistributedSampler[int]):
    """One process's share of every epoch, in an order that is a function of (seed, epoch).

    The first pass begins where a resumed run was stopped; its length is that of a whole epoch all the same, as
    Lightning counts the batches that were done too.

    Args:
        dataset: All images.
        world_size: Processes.
        rank: This one's.
        seed: Of the order.
        epoch: Of the first pass.
        num_done: Of this process's images in the first pass.
    """

    def __init__(
        self, dataset: Split, world_size: int, rank: int, seed: int, epoch: int = 0, num_done: int = 0
    ) -> None:
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

    Attributes:
        name: Of the data set, as results give it.
        image_shape: (C, H, W).
        num_classes: K.
        note: What a reader of its results must know, if anything.
        datasets: The splits, after `setup`.
        LOADING: The arguments that say how images are read.
        NOT_IDENTIFYING: The arguments that do not decide which image is where: those, where the files lie, and, of a
            subclass, what only chooses which images are tested.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    note: str | None = None
    LOADING: ClassVar[tuple[str, ...]] = ("batch_size", "eval_batch_size", "num_workers", "pin_memory", "on_device")
    NOT_IDENTIFYING: ClassVar[tuple[str, ...]] = (*LOADING, "data_dir", "path")

    def __init__(
        self,
        batch_size: PositiveInt = 128,
        eval_batch_size: PositiveInt = 250,
        seed: int = 0,
        num_workers: NonNegativeInt = 0,
        pin_memory: bool = False,
        on_device: bool = True,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed = seed
        self.num_workers, self.pin_memory, self.on_device = num_workers, pin_memory, on_device
        self.datasets: dict[str, Split] = {}
        self.first_epoch = self.batches_done = 0  # of a resumed run

    @property
    def class_names(self) -> Sequence[str]:
        """Of the K classes; their numbers, where a data set gives no names."""
        return [str(label) for label in range(self.num_classes)]

    @property
    def identity(self) -> dict[str, Any]:
        """The arguments that decide which image is where, as JSON has them."""
        constructors = [vars(base)["__init__"] for base in type(self).__mro__ if "__init__" in vars(base)]
        parameters = [p for made in constructors for p in inspect.signature(made).parameters.values()]
        named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        values = {name: getattr(self, name) for name in sorted(named - {"self", *self.NOT_IDENTIFYING})}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits "train", "val" and "test"; the last in a seeded random order and with `other_image`."""

    def split(
        self, train: ImagesAndLabels, test: ImagesAndLabels, num_val: int, argument: str, num_train: int | None = None
    ) -> dict[str, Split]:
        """The three splits of two files: validation is a seeded choice of the training file, training the rest of it.

        Args:
            train: A file.
            test: The other.
            num_val: Images for validation.
            argument: What decides it, for the message.
            num_train: Train on so many only, the classes equally; None for all.

        Raises:
            ValueError: num_val leaves no image on either side, or there are not num_train.
        """
        labels = train[1]
        if not 0 < num_val < len(labels):
            raise ValueError(f"{argument} keeps {num_val} of {len(labels)} images for validation; keep some of both")
        order = torch.randperm(len(labels), generator=self.generator())
        chosen = class_balanced(labels, order[:-num_val], num_train)
        shuffled = torch.randperm(len(test[1]), generator=self.generator())
        return splits(*train, {"train": chosen, "val": order[-num_val:]}) | splits(*test, {"test": shuffled})

    def setup(self, stage: str) -> None:
        """Raises ValueError where there are more processes than images to evaluate."""
        if self.datasets:
            return
        _ = self.identity  # an argument that it does not find is an error now, not at the first checkpoint
        self.datasets = self.load()
        world, _ = self._replicas()
        for split, num_images in self._num_images(*self.datasets).items():
            if split != "train" and num_images < world:
                raise ValueError(
                    f"the {split} split of {self.name} has {num_images} images for {world} processes; start at most "
                    f"{num_images} (--trainer.devices)"
                )
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if (
            self.on_device
            and self.num_workers == 0
            and device.type == "cuda"
            and 4 * sum(dataset.num_bytes for dataset in self.datasets.values()) < torch.cuda.mem_get_info(device)[0]
        ):
            self.pin_memory = False  # nothing is left to copy
            for dataset in self.datasets.values():
                dataset.to(device)

    def generator(self) -> torch.Generator:
        """For the splits, a function of the seed."""
        return torch.Generator().manual_seed(self.seed)

    def _replicas(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, dataset: Split, sampler: Any, batch_size: int) -> DataLoader[Batch]:
        return DataLoader(
            dataset, batch_size=batch_size, sampler=sampler, collate_fn=_as_is, num_workers=self.num_workers,
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
        """Raises ValueError where the global batch does not divide among the processes."""
        world, rank = self._replicas()
        self.check_processes(world)
        mine = self.batch_size // world
        sampler = ResumableSampler(
            self.datasets["train"], world, rank, self.seed, self.first_epoch, self.batches_done * mine
        )
        return self._loader(self.datasets["train"], sampler, mine)

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        sampler = UnrepeatedDistributedSampler(self.datasets[split], *self._replicas(), shuffle=False)
        return self._loader(self.datasets[split], sampler, self.eval_batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Which data a checkpoint saw, and how far: the epoch, and its global batches that are done."""
        state: dict[str, Any] = {"dataset": self.name, "identity": self.identity}
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
        """Compare the data of a checkpoint with this.

        Args:
            checkpoint: As Lightning saved it.
            source: What it is, for the message.
            classifier: It is a classifier's, whose inverters train on all images, whatever it saw of them.

        Raises:
            ValueError: It has seen other data, or other parts of this data for training.
        """
        ours = {key: value for key, value in self.identity.items() if not (classifier and key == "num_train")}
        for state in checkpoint.values():
            if not isinstance(state, dict) or "dataset" not in state:
                continue
            if state["dataset"] != self.name:
                raise ValueError(
                    f"{source} was trained on {state['dataset']}, not on {self.name}; give the config of that data"
                )
            # Up to version 0.4 the seed was all that was saved.
            theirs = state.get("identity") or {"seed": state.get("seed", self.seed)}
            for key, value in ours.items():
                if theirs.get(key, value) != value:
                    was, now = json.dumps(theirs[key]), json.dumps(value)
                    raise ValueError(
                        f"{source} was trained with --data.{key} {was}, not {now}, which gives other images or divides "
                        f"them differently into training and test; give --data.{key} {was}"
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
