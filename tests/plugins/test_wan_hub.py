"""A size whose weights are on the hub: what a run fetches on its way changes nothing that it is."""

from __future__ import annotations

import inspect
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo_wan import components
from salt_zoo_wan.checkpoint.config_json import without_defaults
from salt_zoo_wan.components import Components
from salt_zoo_wan.published_configs import PUBLISHED
from tests.plugins.test_wan_published_sizes import SIZE, TRANSFORMER, tiny_wan  # noqa: F401

NAME = "wan2.1-t2v-1.3b"
COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def hub(tiny_wan, tmp_path, monkeypatch):  # noqa: F811
    """A hub with a tiny Wan under the name of the published one, and an empty cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(
        huggingface_hub.HfApi, "repo_info", lambda *_, **__: SimpleNamespace(sha=COMMIT)
    )
    for key in list(PUBLISHED[NAME].transformer):
        monkeypatch.delitem(PUBLISHED[NAME].transformer, key)
    for key, value in TRANSFORMER.items():
        monkeypatch.setitem(PUBLISHED[NAME].transformer, key, value)
    root = cache / ("models--" + PUBLISHED[NAME].hub.replace("/", "--"))
    fetched = []

    def fetch(self, part):
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text(COMMIT)
        shutil.copytree(tiny_wan / part, root / "snapshots" / COMMIT / part)
        fetched.append(part)
        return ""

    monkeypatch.setattr(Components, "_fetch", fetch)
    components._commit_on_hub.cache_clear()
    yield fetched
    components._commit_on_hub.cache_clear()


def test_a_run_that_has_fetched_its_weights_is_resumed(hub, write_run, cli, tmp_path):
    run = {
        "method": {"name": "dmd", "steps": 1, "fake_score": {"updates": 1}},
        "backbone": {"name": "wan", "size": NAME, "options": {**SIZE, "weights": None}},
        "dataset": "prompts",
    }
    for updates in (1, 2):
        training = {"updates": updates, "batch_size": 1, "checkpoint_every": 1}
        path = write_run(**run, training=training)
        ended = cli("train", path, "--out", tmp_path / "run", "--device", "cpu")
        assert ended.code == 0, ended.err
        assert hub.count("transformer") == hub.count("text_encoder") == 1
    assert "resuming after update 1 of 2" in ended.err


def test_all_parts_are_of_one_commit(hub, monkeypatch):
    """A branch that has moved on since the first part was fetched does not change the others."""
    asked = []
    monkeypatch.undo()  # the real `_fetch`
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **given: asked.append(given["revision"])
    )
    source = Components(PUBLISHED[NAME].hub)
    for commit in (None, COMMIT):
        monkeypatch.setattr(components, "_cached_commit", lambda *_, known=commit: known)
        assert source._fetch("vae") == "the repository lacks it"
    assert asked == ["main", COMMIT]


def test_arguments_that_another_diffusers_adds_change_nothing(monkeypatch):
    before = without_defaults(PUBLISHED[NAME].transformer)
    assert before["num_layers"] == 30 and "cross_attn_norm" not in before
    signature = inspect.signature(WanTransformer3DModel.__init__)
    added = inspect.Parameter("new", inspect.Parameter.KEYWORD_ONLY, default=True)
    wider = signature.replace(parameters=[*signature.parameters.values(), added])
    monkeypatch.setattr(inspect, "signature", lambda _: wider)
    assert without_defaults(PUBLISHED[NAME].transformer) == before


def test_an_unknown_commit_is_the_revision(hub, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no internet")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", refuse)
    source = PUBLISHED[NAME].hub
    assert Components(source).fingerprint("vae") == {"vae": f"{source}@main"}
    Components(source).folder("transformer")  # the cache knows the commit now, of all parts
    assert Components(source).fingerprint("vae") == {"vae": f"{source}@{COMMIT}"}
