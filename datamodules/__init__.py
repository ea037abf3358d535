"""The data sets that a config may name."""

from datamodules.affnist import AffNISTDataModule
from datamodules.channels import PairsDataModule, StepsDataModule
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.digit_channel import DigitChannelDataModule
from datamodules.finite_worlds import EnumerableDataModule, GlyphPositionDataModule
from datamodules.image_folder import ImageFolderDataModule
from datamodules.images import ImageDataModule
from datamodules.mnist import MNIST5kDataModule, MNISTDataModule
from datamodules.parity import ParityDataModule
from datamodules.photos import PhotosDataModule
from datamodules.svhn import SVHNDataModule
from datamodules.worlds import BitDropDataModule, MarkovDataModule, ShuffledDataModule

__all__ = [
    "AffNISTDataModule", "BitDropDataModule", "CIFAR10DataModule", "DigitChannelDataModule", "EnumerableDataModule",
    "GlyphPositionDataModule", "ImageDataModule", "ImageFolderDataModule", "MNIST5kDataModule", "MNISTDataModule",
    "MarkovDataModule", "PairsDataModule", "ParityDataModule", "PhotosDataModule", "SVHNDataModule",
    "ShuffledDataModule", "StepsDataModule",
]  # fmt: skip
