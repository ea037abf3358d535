"""What every data set has in common: uint8 images in memory, three splits, batches as dictionaries."""

import signal
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

Batch = dict[str, Tensor]


class ImageDataset(Dataset[Batch]):
    """Images with their labels and their indices in the data set that they come from.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        index: int64 [N].
        with_other: Give with every image its `position` in this split, and the next image, cyclically, as
            `other_image`: to score representations that belong to another image.

    Attributes:
        h: What a network makes of the images, read by positions, [B, ...]; where it is set, batches have it.
    """

    def __init__(self, images: Tensor, labels: Tensor, index: Tensor, with_other: bool = False) -> None:
        assert images.dtype == torch.uint8
        assert len(images) == len(labels) == len(index)
        self.images, self.labels, self.index = images, labels, index
        self.with_other = with_other
        self.h: Any = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_bytes(self) -> int:
        """Of the images."""
        return self.images.nbytes

    def to(self, device: torch.device) -> None:
        """Keep everything on a device and index it there."""
        self.images, self.labels, self.index = (x.to(device) for x in (self.images, self.labels, self.index))

    def __getitem__(self, i: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([i]).items()}

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """A whole batch by one indexing operation; the data loader prefers this where it exists."""
        chosen = torch.as_tensor(positions, device=self.images.device)
        batch = {"image": self.images[chosen], "label": self.labels[chosen], "index": self.index[chosen]}
        if self.h is not None:
            batch["h"] = self.h[positions]
        if self.with_other:
            batch["position"] = chosen
            batch["other_image"] = self.images[(chosen + 1) % len(self)]
        return batch


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
        self, dataset: Dataset[Batch], world_size: int, rank: int, seed: int, epoch: int = 0, num_done: int = 0
    ) -> None:
        super().__init__(dataset, world_size, rank, shuffle=True, seed=seed)
        self.set_epoch(epoch)
        self.num_done = num_done

    def __iter__(self) -> Iterator[int]:
        num_done, self.num_done = self.num_done, 0
        return islice(super().__iter__(), num_done, None)


class ImageDataModule(LightningDataModule):
    """Three splits of one image data set.

    The constructors keep the arguments of lightning-bolts' VisionDataModule where they make sense here.

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
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 250,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        on_device: bool = True,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed = seed
        self.num_workers, self.pin_memory, self.on_device = num_workers, pin_memory, on_device
        self.datasets: dict[str, Dataset[Batch]] = {}
        self.first_epoch = self.batches_done = 0  # of a resumed run

    @property
    def class_names(self) -> Sequence[str]:
        """Of the K classes; their numbers, where a data set gives no names."""
        return [str(label) for label in range(self.num_classes)]

    @abstractmethod
    def load(self) -> dict[str, Dataset[Batch]]:
        """The splits "train", "val" and "test"; the last in a seeded random order and with `other_image`."""

    def split(
        self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], num_val: int, argument: str
    ) -> dict[str, Dataset[Batch]]:
        """The three splits of images and labels in two files: validation is a seeded choice of the training file.

        Raises:
            ValueError: num_val leaves no image on either side; the message gives the argument that decides it.
        """
        images, labels = train
        if not 0 < num_val < len(images):
            raise ValueError(f"{argument} keeps {num_val} of {len(images)} images for validation; keep some of both")
        order = torch.randperm(len(images), generator=self.generator())
        datasets: dict[str, Dataset[Batch]] = {
            name: ImageDataset(images[index], labels[index], index)
            for name, index in (("train", order[:-num_val]), ("val", order[-num_val:]))
        }
        images, labels = test
        index = torch.randperm(len(images), generator=self.generator())
        datasets["test"] = ImageDataset(images[index], labels[index], index, with_other=True)
        return datasets

    def setup(self, stage: str) -> None:
        """Raises ValueError where there are more processes than images to evaluate."""
        if self.datasets:
            return
        self.datasets = self.load()
        world, _ = self._replicas()
        for split, num_images in self._num_images(*self.datasets).items():
            if split != "train" and num_images < world:
                raise ValueError(
                    f"the {split} split of {self.name} has {num_images} images for {world} processes; start at most "
                    f"{num_images} (--trainer.devices)"
                )
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        in_memory = [dataset for dataset in self.datasets.values() if isinstance(dataset, ImageDataset)]
        if (
            self.on_device
            and self.num_workers == 0
            and device.type == "cuda"
            and 4 * sum(dataset.num_bytes for dataset in in_memory) < torch.cuda.mem_get_info(device)[0]
        ):
            self.pin_memory = False  # nothing is left to copy
            for dataset in in_memory:
                dataset.to(device)

    def generator(self) -> torch.Generator:
        """For the splits, a function of the seed."""
        return torch.Generator().manual_seed(self.seed)

    def _replicas(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _loader(self, dataset: Dataset[Batch], sampler: Any, batch_size: int) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
            generator=self.generator(),  # otherwise making an iterator would draw from the global random state
        )

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
        state: dict[str, Any] = {"dataset": self.name, "seed": self.seed}
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
        return {split: len(self.datasets[split]) for split in splits}  # type: ignore[arg-type] # all have a length

    def check(self, checkpoint: dict[str, Any], source: str | Path) -> None:
        """Raises ValueError where a checkpoint has seen other data, or other parts of this data for training."""
        for state in checkpoint.values():
            if not isinstance(state, dict) or "dataset" not in state:
                continue
            if state["dataset"] != self.name:
                raise ValueError(
                    f"{source} was trained on {state['dataset']}, not on {self.name}; give the config of that data"
                )
            if state.get("seed", self.seed) != self.seed:
                raise ValueError(
                    f"{source} was trained with --data.seed {state['seed']}, not {self.seed}, which divides the images "
                    f"differently into training and test; give --data.seed {state['seed']}"
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
