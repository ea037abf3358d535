"""A zip archive of torch.save, looked at before anything in it is loaded."""

import os
import zipfile


def pickle_of_archive(path: str | os.PathLike[str], longest: int) -> bytes:
    """What is beside the tensors.

    Args:
        path: The file's.
        longest: Of that part, in bytes.

    Raises:
        ValueError: The archive is damaged, or made to fill the memory: torch.save compresses nothing.
    """
    with zipfile.ZipFile(path) as archive:
        files = archive.infolist()
        if any(file.compress_type != zipfile.ZIP_STORED for file in files):
            raise ValueError("it is compressed")
        if sum(file.file_size for file in files) > os.path.getsize(path):
            raise ValueError("it is said to be larger than its file")
        pickles = [file for file in files if file.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or len({file.filename for file in files}) < len(files):
            raise ValueError("its files have no names of their own")
        if pickles[0].file_size > longest:
            raise ValueError(f"it has {pickles[0].file_size} bytes beside its tensors, more than {longest}")
        damaged = archive.testzip()  # torch.load would take a flipped bit for a weight
        if damaged:
            raise ValueError(f"its checksum of {damaged} is wrong")
        return archive.read(pickles[0])
