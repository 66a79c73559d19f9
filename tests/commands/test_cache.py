"""What is kept is shown and cleared, but for what a process is at work on."""

from vfl.io.cache import cached_folder


def test_what_is_kept_is_shown_and_cleared(vfl_command, tmp_path, monkeypatch):
    monkeypatch.setenv("VFL_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "cache" / "rows"

    def kept(key, size, make=None):
        def write(folder):
            (folder / "file").write_bytes(bytes(size))
            if make is not None:
                make()

        return cached_folder("rows", key, lambda folder: (folder / "file").exists() or None, write, doing="is a test")

    assert vfl_command("cache") == (0, f"{tmp_path / 'cache'}\n", "")
    kept("one", 1024)
    kept("two", 512)
    (rows / ".three.77.tmp").mkdir()
    (rows / ".three.77.tmp" / "file").write_bytes(bytes(512))
    assert vfl_command("cache")[1].splitlines()[0] == "rows: 3 of 2.0 KiB"
    kept("four", 1, make=lambda: vfl_command("cache", "--clear"))
    assert [path.name for path in rows.iterdir()] == ["four"], "what was being made stays, all else is gone"
