"""What a run has come to, as digests: equal where two runs are the same bit for bit."""

import hashlib
import json

import torch


def tensors(value, name=""):
    """Every leaf of a checkpoint, by its path in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from tensors(inner, f"{name}/{i}")
    else:
        yield name, value


def checkpoint_digest(path):
    """Of all in a checkpoint but where the run lies, when it began, and W&B's name of it."""
    folder = path.absolute().parent.parent
    digest = hashlib.sha256()
    for name, value in tensors(torch.load(path, weights_only=True)):
        name, value = (
            text.replace(str(folder), "").replace(folder.name, "") if isinstance(text, str) else text
            for text in (name, value)
        )
        if name == "/wandb_id":
            continue
        if name.endswith(
            "/current_score"
        ):  # the last validation's, which Lightning saves, does not restore, and never reads
            continue
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def run_digests(folder):
    """Of what lies in a run's folder, by name."""
    found = {name: checkpoint_digest(folder / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt")}
    found["pictures"] = sorted(path.name for path in folder.glob("*.png"))
    for name in ("metrics.csv", "log_prob.npy", "log_prob_per_pixel.npy", "samples.npz"):
        found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


def every_file(runs):
    """Of all that lies in a folder of runs, by path, but for when a run began, W&B's own files and those of locks."""
    found = {}
    for path in sorted(path for path in runs.rglob("*") if path.is_file() and path.suffix != ".lock"):
        config, run, *rest = path.relative_to(runs).parts
        if not rest or rest[0] in ("wandb", "resumed"):
            assert rest or run == ".lock", path  # nothing is left beside the runs
            continue
        if path.suffix == ".ckpt":
            content = checkpoint_digest(path)
        else:
            content = path.read_bytes().replace(run.encode(), b"")
            if rest == ["run.json"]:  # where a run before it was killed its number is another
                content = sorted(json.loads(content))
        assert (config, *rest) not in found, f"two runs of {config}"
        found[config, *rest] = content
    return found
