"""The file of compressed images: 26 bytes that tell what it takes to read it, the code, and a checksum.

A file that is not whole, or is read with another h or with other weights, is refused before it is decoded, and images
that are not those that went in are refused after.
"""

import hashlib
import platform
import struct
import zlib

import torch
from torch import Tensor

from inverters.entropy_coding import AT_ONCE, decoded, encoded, one_thread
from inverters.generators import AutoregressiveDensity, check_images
from inverters.inverter import Inverter
from inverters.representation import digest

MAGIC = b"p(x"
OF_ALL = 1  # the version of files that are given all of h, as up to 0.12 all were
OF_ARRIVED = 2  # of those that are given what a channel leaves of it
HEADER = struct.Struct("<3sBI6s4s6s2s")  # magic, version, images; digests of weights, of h, of the images; machine


def received(inverter: Inverter, h: Tensor) -> Tensor:
    """What a receiver has of raw h [N, ...]: what arrives of it, in a precision that NumPy's files have."""
    h = inverter.arrived(h)
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def compressed(inverter: Inverter, image: Tensor, h: Tensor) -> bytes:
    """A file of images, given their h.

    Args:
        inverter: In eval mode.
        image: x, uint8 [N, C, H, W].
        h: As it is `received`, [N, ...]; [N, 0] of an unconditional model.

    Raises:
        ValueError: There is no image, or the model cannot be coded by, or rules one out.
    """
    density, image = _density(inverter), image.cpu()
    check_images(image, density.image_shape)
    if not len(image):
        raise ValueError("no images to compress; give at least one")
    code = encoded(density, image, _context(inverter, h))
    digests = _of_weights(inverter)[:6], _of_tensor(h)[:4], _of_tensor(image)[:6], _of_machine()
    content = HEADER.pack(MAGIC, _version(inverter), len(image), *digests) + code
    return content + struct.pack("<I", zlib.crc32(content))


def decompressed(inverter: Inverter, content: bytes, h: Tensor | None, source: object = "the file") -> Tensor:
    """The images of a file, bit for bit as they were: uint8 [N, C, H, W].

    Args:
        h: Of these images, in their order, as it was when they were compressed; None for an unconditional model.
        source: The file's name, for errors.

    Raises:
        ValueError: The file is none, is not whole, or is of other weights or another h; or what comes out is not what
            went in.
    """
    density = _density(inverter)
    if content[:3] != MAGIC:
        raise ValueError(f"{source} holds no compressed images; give what compress has written")
    if content[3:4] not in (bytes([OF_ALL]), bytes([OF_ARRIVED])):
        raise ValueError(f"{source} is of version {content[3:4].hex()}, and this reads 01 and 02; compress it again")
    if len(content) < HEADER.size + 4 or struct.pack("<I", zlib.crc32(content[:-4])) != content[-4:]:
        raise ValueError(f"{source} is damaged or not whole, by its checksum; copy it again")
    _, version, number, of_weights, of_h, of_images, of_machine = HEADER.unpack_from(content)
    if of_weights != _of_weights(inverter)[:6]:
        raise ValueError(f"{source} was compressed with other weights; give its checkpoint as --ckpt_path")
    if version != _version(inverter):
        raise ValueError(f"{source} was compressed given all of h, as up to version 0.12; compress it again")
    shape = inverter.representation.shape(inverter.seen_shape)
    if h is None:
        if inverter.representation.layer is not None:
            raise ValueError(f"{source} was compressed given h; give the h that was written beside it")
        h = torch.empty(number, *shape)
    if tuple(h.shape) != (number, *shape):
        raise ValueError(f"{source} takes h of {[number, *shape]}, not {list(h.shape)}; give that of its images")
    if of_h != _of_tensor(h)[:4]:
        raise ValueError(f"h is not that with which {source} was compressed; give the one that was written beside it")
    image = decoded(density, content[HEADER.size : -4], _context(inverter, h))
    if of_images != _of_tensor(image)[:6]:
        here = "this processor" if of_machine == _of_machine() else "another PyTorch or another kind of processor"
        raise ValueError(
            f"the images that come out of {source} are not those that went in: {here} computes other last digits of "
            f"p(x | h) than where it was compressed; decompress it there"
        )
    return image


def _density(inverter: Inverter) -> AutoregressiveDensity:
    density = inverter.with_likelihood()
    if not isinstance(density, AutoregressiveDensity):
        raise ValueError(f"a {type(density).__name__} gives no probabilities pixel by pixel, and cannot be coded by")
    return density


def _version(inverter: Inverter) -> int:
    return OF_ALL if inverter.channel is None else OF_ARRIVED


def _context(inverter: Inverter, h: Tensor) -> Tensor:
    """What is received as the density takes it, made where and as all else is that both ways must share."""
    with one_thread():
        return torch.cat([inverter.context_of_arrived(part) for part in h.cpu().split(AT_ONCE)])


def _of_weights(inverter: Inverter) -> bytes:
    """Of all that makes p(x | h) from h."""
    scale = torch.stack((inverter.context_mean, inverter.context_scale))
    channel = [] if inverter.channel is None else [inverter.channel.description, digest(inverter.channel)]
    its = "".join([digest(inverter.density), *channel]).encode()
    return hashlib.sha256(its + _of_tensor(scale)).digest()


def _of_tensor(x: Tensor) -> bytes:
    about = f"{x.dtype} {list(x.shape)}".encode()
    return hashlib.sha256(about + x.detach().cpu().contiguous().numpy().tobytes()).digest()


def _of_machine() -> bytes:
    """Of what last digits depend on, as far as it is known."""
    its = (torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.machine())
    return hashlib.sha256(" ".join(its).encode()).digest()[:2]
