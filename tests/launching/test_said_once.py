"""Before the processes of a run have found each other they have the launcher's store, and wait there for the first."""

from threading import Thread

import torch.distributed as dist

from vfl.launching import said_once

TEXT = "Error: a typo"


def test_what_the_first_process_says_no_other_one_says(monkeypatch, capsys):
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "1")
    other = Thread(target=said_once.say_once, args=(TEXT,))
    other.start()
    other.join(0.2)
    assert other.is_alive(), "its end would be the end of the first, which has said nothing yet"
    store.set(said_once._key(TEXT), "said")
    other.join()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    said_once.say_once("Error: another")
    assert store.get(said_once._key("Error: another")) == b"said"
    assert capsys.readouterr().err == "Error: another\n"
