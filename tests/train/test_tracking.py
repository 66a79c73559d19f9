"""Where nobody is logged in to wandb, its runs stay offline; a login is left alone."""

import os

import pytest

from vfl.train.callback.tracking import offline_without_login


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder in which nobody is logged in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "")  # undone after the test, whatever it sets
    monkeypatch.delenv("WANDB_MODE")
    return tmp_path


def test_without_a_login_wandb_is_kept_offline(home, monkeypatch):
    assert offline_without_login()
    assert os.environ["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")  # online would ask for one
    assert offline_without_login()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not offline_without_login()
    assert os.environ["WANDB_MODE"] == "disabled"


@pytest.mark.parametrize("login", ["key", "netrc", "other netrc", "settings", "own server"])
def test_with_a_login_wandb_is_left_alone(home, monkeypatch, login):
    if login == "key":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    elif login == "netrc":
        (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
    elif login == "other netrc":
        (home / "mine").write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
        monkeypatch.setenv("NETRC", str(home / "mine"))
    elif login == "own server":
        (home / ".netrc").write_text(f"machine wandb.example.org\n  login user\n  password {'0' * 40}\n")
        assert offline_without_login()
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    else:
        (home / ".config" / "wandb").mkdir(parents=True)
        (home / ".config" / "wandb" / "settings").write_text(f"[default]\napi_key = {'0' * 40}\n")
    assert not offline_without_login()
    assert "WANDB_MODE" not in os.environ
