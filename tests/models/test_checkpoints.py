import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dex_jax.models import read_torch_checkpoint
from tests.models import golden_networks

TINY = (
    "tiny_resnet_ibn_a.safetensors",
    "tiny_resnet_ibn_a_zip.pth",
    "tiny10_legacy.pth",
    "tiny10_legacy_tar.pth",
    "tiny10_wrapped_module_zip.pth.tar",
    "tiny10_wrapped_module_legacy_foreign_globals.pth.tar",
    "tiny10_params_no_nbt_zip.pth",
)


@pytest.mark.parametrize("file", TINY)
def test_every_container_gives_the_same_tensors(golden, file: str):
    folder = golden / "checkpoints"
    state = json.loads((folder / "tiny_state.json").read_text())
    tensors = read_torch_checkpoint(folder / file)
    counters = 0 if "no_nbt" in file or file == "tiny10_legacy_tar.pth" else 17
    assert len(tensors) == 93 + counters
    for name, shape, dtype, _ in state["state_1000"]:
        full = f"module.{name}" if "wrapped" in file else name
        if full not in tensors:
            assert name.endswith("num_batches_tracked")
            continue
        if name.startswith("fc.") and "tiny10" in file:
            shape = [10, *shape[1:]]
        expected = golden_networks.weight(
            name, tuple(shape), salt=state["salt"], gain=state["gain"]
        )
        assert tensors[full].dtype == dtype
        # exp() in the fill rule may differ in its last bit between platforms.
        np.testing.assert_allclose(tensors[full], expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize("file", ["tricky_zip.pth", "tricky_legacy.pth"])
def test_views_strides_and_types(golden, file: str):
    tensors = read_torch_checkpoint(golden / "checkpoints" / file)
    expected = np.load(golden / "checkpoints" / "tricky_expected.npz")
    assert set(tensors) == set(expected)
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("hostile_global_zip.pth", r"asks to call io\.open, .* nothing in it was run"),
        ("hostile_global_legacy.pth", r"asks to call io\.open"),
        ("hostile_out_of_bounds_zip.pth", r"\(1000, 1000\) .* a storage of 4"),
        ("hostile_short_storage_zip.pth", "holds 8 bytes where 16 are declared"),
        ("hostile_huge_numel_zip.pth", "storages take 4398046511104 bytes"),
    ],
)
def test_hostile_files_are_refused(
    golden, tmp_path: Path, monkeypatch, file: str, message: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{file}: refused: .*{message}"):
        read_torch_checkpoint(golden / "checkpoints" / file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["tiny_resnet_ibn_a_zip.pth", "tiny10_legacy.pth"])
def test_truncated_files_are_named(golden, tmp_path: Path, file: str):
    whole = (golden / "checkpoints" / file).read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        short = tmp_path / f"short{length}.pth"
        short.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"short{length}\.pth: "):
            read_torch_checkpoint(short)


def test_other_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*absent\.pth"):
        read_torch_checkpoint(tmp_path / "absent.pth")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    contents = {
        "text.pth": b"these are not weights",
        "numpy.pth": buffer.getvalue(),
        "plain.pth": pickle.dumps({"a": 1}),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_torch_checkpoint(tmp_path / name)
    file = tmp_path / "empty.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"epoch": 3}, protocol=2))
    with pytest.raises(ValueError, match=r"no named tensors, only 'epoch'"):
        read_torch_checkpoint(file)
