"""How a run ends: by a closed terminal, by the death of another process, by a full disk; and what is said then."""

import logging
import os
import pty
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from digests import run_digests
from small_runs import CLI, INVERTER, SHORT, environment_of_its_own, failure, signal_at, the_run
from test_faults import checkpoint_of, largest_file
from test_resume import FIT, digests_of_one_go, stopped

from cli import main
from commands.sentences import of_error, print_error
from runtime.checkpoints import load_checkpoint
from runtime.metrics_csv import MetricsCSV
from runtime.signals import SIGNALS, answer
from runtime.silence import silence_lightning
from runtime.starter import end_with
from runtime.wandb_account import safe_id


def test_sighup_is_answered_like_sigterm_and_the_run_resumes_exactly(with_classifier, trained_runs, tmp_path_factory):
    expected = digests_of_one_go(trained_runs, tmp_path_factory.mktemp("whole"))
    stopped([*FIT, signal_at(3, "SIGHUP")], "SIGHUP")
    main([*FIT, "--ckpt_path=last"])
    assert run_digests(the_run(Path())) == expected


def test_a_closed_terminal_ends_a_run_with_a_checkpoint(with_classifier):
    """What is printed then has nowhere to go, and must not be an error before the checkpoint is written."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(
            sys.executable,
            [sys.executable, str(CLI), "fit", *SHORT, "--trainer.max_steps=100000"],
            environment_of_its_own(),
        )
    end = time.monotonic() + 120
    while not list(Path("runs", INVERTER).glob("*/checkpoints/last.ckpt")) and time.monotonic() < end:
        os.set_blocking(terminal, False)
        with suppress(OSError):
            os.read(terminal, 2**16)
        time.sleep(0.1)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert load_checkpoint(checkpoint_of(INVERTER))["global_step"] > 0


def test_nohup_is_left_alone():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in SIGNALS:
        answer(number, signal.default_int_handler)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR1) == signal.default_int_handler


@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_process_ends_soon_after_the_one_that_started_it(capfd):
    """Both are forked: the first dies at once, the second would wait for a minute."""
    alive, held = os.pipe()
    first = os.fork()
    if first == 0:
        starter = os.getpid()
        if os.fork() == 0:
            end_with(starter, seconds=0.05)
            time.sleep(60)
            os._exit(0)
        os.kill(starter, signal.SIGKILL)
    os.close(held)
    os.waitpid(first, 0)
    start = time.monotonic()
    assert os.read(alive, 1) == b""  # when the second is gone
    os.close(alive)
    assert time.monotonic() - start < 10
    assert "the process that started this one has ended; if it does not say why above" in capfd.readouterr().err


def test_the_death_of_another_process_is_told_as_far_as_it_is_known():
    said = of_error(RuntimeError("Connection closed by peer [127.0.0.1]:4321"))
    assert said.startswith("another process of this run has ended; if it does not say why above, it was killed;")


def test_a_typo_makes_no_folder_and_an_error_of_a_run_is_kept_with_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failure(capsys, "fti", *SHORT)
    failure(capsys, "report")
    assert list(tmp_path.iterdir()) == []
    Path("elsewhere").mkdir()
    print_error(ValueError("wrong"), Path("elsewhere"))
    assert "error: wrong (traceback in elsewhere/last_error.txt)" in capsys.readouterr().err


def test_ids_of_wandb_are_what_it_takes_and_stay_apart():
    assert safe_id("inverter_mnist5k_fc3-2026-01-01_00-00-00") == "inverter_mnist5k_fc3-2026-01-01_00-00-00"
    wanted = ["a b", "a:b", "a;b", "a,b", "a#b", "a?b", "a/b", "a'b", "a\udcffb", "a\udcfeb", "a" * 300, "a" * 301]
    found = [safe_id(name) for name in wanted]
    assert len(set(found)) == len(wanted)
    assert all(safe_id(name) == name and len(name) < 128 and not set(name) & set(":;,#?/' ") for name in found)


def test_any_config_name_has_a_run_of_wandb_without_its_warnings(with_classifier, capsys):
    name = "a:b;c,d#e?f'g"
    Path(f"{name}.yaml").write_text((CLI.parent / "configs" / f"{INVERTER}.yaml").read_text())
    main(["fit", f"--config={name}.yaml", *SHORT[1:], "--trainer.max_steps=1", "--test_after_fit=false"])
    assert len(list(Path("runs", name).glob("*/wandb/offline-run-*"))) == 1
    assert "anonymous" not in capsys.readouterr().err


def test_a_log_on_a_full_disk_says_nothing(tmp_path, capsys):
    silence_lightning()
    log = logging.getLogger("wandb_like")
    handler = logging.FileHandler(tmp_path / "debug.log")
    log.addHandler(handler)
    with largest_file(10):
        log.warning("more than ten bytes")
    log.removeHandler(handler)
    with suppress(OSError):
        handler.close()
    assert "Traceback" not in capsys.readouterr().err


def test_the_cost_is_of_what_is_left(with_inverter, capsys):
    resume = ["fit", *SHORT, "--trainer.logger=false", "--test_after_fit=false", "--ckpt_path=last"]
    main([*resume, "--trainer.max_steps=2"])
    assert "cost:" not in capsys.readouterr().out
    main([*resume, "--trainer.max_steps=3"])
    assert "cost: at most 1 steps" in capsys.readouterr().out
    main([*resume, "--trainer.max_steps=-1", "--trainer.max_epochs=2", "--trainer.limit_train_batches=3"])
    assert "cost: at most 3 steps" in capsys.readouterr().out


def test_a_late_divergence_goes_on_from_the_best_checkpoint_with_a_lower_rate(with_inverter, capsys):
    fit = ["fit", *SHORT, "--trainer.logger=false", "--test_after_fit=false", "--ckpt_path=last"]
    callback = "[{class_path: signal_at.LearningRate, init_args: {step: 4, value: 1e30}}]"
    message = failure(capsys, *fit, "--trainer.max_steps=9", f"--trainer.callbacks={callback}")
    best, last = checkpoint_of(INVERTER, "best"), checkpoint_of(INVERTER)
    assert f"lower --model.lr; {last} is the last checkpoint before" in message
    assert f"--ckpt_path={best} goes on from that" in message
    assert load_checkpoint(best)["global_step"] == 4
    resume = [word.replace("=last", f"={best}") for word in fit]
    main([*resume, "--trainer.max_steps=6", "--model.lr=1e-5", "--model.betas=[0.9,0.99]"])
    said = capsys.readouterr().out
    changed = "betas (0.9, 0.99), not (0.95, 0.9995); lr 1e-05, not 0.004; max_steps 6, not 9"
    assert f"from step 4 on with {changed} as before" in said
    group, turned = load_checkpoint(last)["optimizer_states"][0]["param_groups"]
    assert group["lr"] == turned["lr"] == 0  # the end of the cooldown
    main([*fit, "--trainer.max_steps=6", "--model.lr=1e-5", "--model.betas=[0.9,0.99]"])
    assert "as before" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "damaged",
    [b"step,loss\r\ntext,1\r\n", b"loss\r\n1\r\n", b"step,loss\r\n0,abc\r\n", b"step\r\n0,1,2\r\n", b"step\r\n\xff\r\n",
     b"step,loss\r\n0\r\n", b"step\r\n\0\r\n", b'step\r\n"0'],
)  # fmt: skip
def test_damaged_metrics_are_named(tmp_path, damaged):
    (tmp_path / "metrics.csv").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"metrics\.csv was damaged .*; mend it, or move it away"):
        MetricsCSV(tmp_path, first_step=3)
    assert (tmp_path / "metrics.csv").read_bytes() == damaged
