"""One step's gradients, and what is frozen: the same whatever fits into memory, and nothing where nothing learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.conftest import Configured, hugging_face
from vlmdata.errors import BrokenInvariant, ConfigError
from vlmdata.training.engine import gradcache
from vlmdata.training.engine.adapters import merged
from vlmdata.training.engine.gradcache import backward
from vlmdata.training.engine.losses import alignment, loss_of, uniformity
from vlmdata.training.engine.memory import checkpoint_gradients, kept_bytes
from vlmdata.training.engine.models import learner
from vlmdata.training.engine.pair import Frozen, Pair, hide_features, let_learn, set_modes, tower_of
from vlmdata.training.engine.step import bounded_scale, optimizer_for

PAIRS = 12
ALL = {"vision": "trained", "text": "trained"}


def built(configured: Configured, folder: Path, *, learns: dict[str, str] = ALL, **changes: Any) -> Pair:
    config = configured(model=str(folder), **changes)
    pair = Pair(learner(config).parts.model, low_precision=False, device="cpu", biased=config.loss == "siglip")
    let_learn(pair.model, learns)
    set_modes(pair.model, learns, fixed_norms=True)
    return pair


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(5)
    return torch.randn(PAIRS, 3, 32, 32, generator=made), torch.randint(1, 400, (PAIRS, 16), generator=made)


def in_chunks(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, tokens = batch()
    return list(zip(images.split(size), tokens.split(size), strict=True))


def gradients(
    pair: Pair, chunks: list[tuple[torch.Tensor, torch.Tensor]], loss: str = "clip"
) -> dict[str, torch.Tensor]:
    pair.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    backward(pair, pair, chunks, loss_of(loss))
    return {name: p.grad.clone() for name, p in pair.model.named_parameters() if p.grad is not None}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of an element; over the largest of its tensor where that is above 1."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max().clamp(min=1)) for name in one)


def with_dropout(pair: Pair) -> Pair:
    for module in pair.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.3
    return pair


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_gradients_of_cached_embeddings_are_those_of_the_whole_batch(
    configured: Configured, request: pytest.FixtureRequest, kind: str, loss: str, size: int
) -> None:
    pair = built(configured, request.getfixturevalue(kind), loss=loss)
    whole = gradients(pair, [batch()], loss)
    assert ("logit_bias" in whole) == (loss == "siglip")
    assert max(float(one.abs().max()) for one in whole.values()) > 1e-3
    assert furthest(whole, gradients(pair, in_chunks(size), loss)) < 1e-5


def with_graph(
    pair: Pair, chunks: list[tuple[torch.Tensor, torch.Tensor]], loss: str = "clip"
) -> dict[str, torch.Tensor]:
    """The same draws, all in memory at once: what caching is to come to."""
    pair.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    out = [pair(*chunk) for chunk in chunks]
    seen, read = (torch.cat([one[place] for one in out]) for place in (0, 1))
    torch.autograd.backward(loss_of(loss)(seen, read, out[0][2], out[0][3]).total)
    return {name: p.grad.clone() for name, p in pair.model.named_parameters() if p.grad is not None}


def test_what_is_drawn_at_random_is_drawn_again_in_the_replay(configured: Configured, vit: Path) -> None:
    pair = with_dropout(built(configured, vit))
    assert furthest(with_graph(pair, in_chunks(4)), gradients(pair, in_chunks(4))) < 1e-5


def test_without_the_random_state_the_replay_would_differ(
    configured: Configured, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = with_dropout(built(configured, vit))
    expected = with_graph(pair, in_chunks(4))
    monkeypatch.setattr(gradcache._RandomState, "restore", lambda self: None)
    assert furthest(expected, gradients(pair, in_chunks(4))) > 1e-4


def test_adding_up_gradients_of_chunks_is_another_loss(configured: Configured, vit: Path) -> None:
    pair = built(configured, vit)
    whole = gradients(pair, [batch()])
    pair.zero_grad(set_to_none=True)
    for chunk in in_chunks(4):
        backward(pair, pair, [chunk], loss_of("clip"))
    added = {name: p.grad / 3 for name, p in pair.model.named_parameters() if p.grad is not None}
    assert furthest(whole, added) > 1e-3


@pytest.mark.parametrize("frozen", ["vision", "text"])
def test_a_frozen_tower_needs_no_replay_and_changes_no_gradient(
    configured: Configured, resnet: Path, frozen: str
) -> None:
    pair = built(configured, resnet, learns={**ALL, frozen: "frozen"})
    whole = gradients(pair, [batch()])
    assert {tower_of(name) for name in whole} == {"vision", "text", "logit"} - {frozen}
    assert furthest(whole, gradients(pair, in_chunks(4))) < 1e-5


def learn_a_little(pair: Pair) -> None:
    optimizer, _ = optimizer_for(pair.model, 0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    for _ in range(2):
        optimizer.zero_grad()
        backward(pair, pair, [batch()], loss_of("clip"))
        optimizer.step()


def test_what_is_frozen_does_not_change_and_what_learns_does(configured: Configured, resnet: Path) -> None:
    learns = {"vision": "frozen", "text": "trained"}
    pair = built(configured, resnet, learns=learns)
    before = {name: tensor.clone() for name, tensor in pair.model.state_dict().items()}
    frozen = Frozen(pair.model)
    learn_a_little(pair)
    frozen.verify()
    changed = {name for name, tensor in pair.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("running_mean" in name for name in before)
    assert {tower_of(name) for name in changed} == {"text", "logit"}


def test_statistics_of_batch_norm_move_only_where_they_may(configured: Configured, resnet: Path) -> None:
    pair = built(configured, resnet)
    name = "visual.bn1.running_mean"
    before = pair.model.state_dict()[name].clone()
    learn_a_little(pair)
    assert torch.equal(before, pair.model.state_dict()[name])
    assert set_modes(pair.model, ALL, fixed_norms=False) == 0
    learn_a_little(pair)
    assert not torch.equal(before, pair.model.state_dict()[name])


@pytest.mark.parametrize("what", ["weight", "gradient", "statistic"])
def test_a_frozen_tower_that_changed_all_the_same_is_told(configured: Configured, resnet: Path, what: str) -> None:
    pair = built(configured, resnet, learns={"vision": "frozen", "text": "trained"})
    frozen = Frozen(pair.model)
    convolution, norm = pair.model.visual.conv1, pair.model.visual.bn1
    with torch.no_grad():
        if what == "weight":
            convolution.weight[0, 0, 0, 0] += 1e-6
        elif what == "statistic":
            norm.running_var[0] += 1e-6
        else:
            convolution.weight.grad = torch.zeros_like(convolution.weight)
    with pytest.raises(BrokenInvariant, match="is frozen and has"):
        frozen.verify()


def looked_at(pair: Pair, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the tower sees at a time; what comes of it is what comes of all at once."""
    encode, sizes = pair.model.encode_image, list[int]()
    whole = torch.nn.functional.normalize(encode(images), dim=-1)
    with monkeypatch.context() as patch:
        patch.setattr(pair.model, "encode_image", lambda some: sizes.append(len(some)) or encode(some))
        assert torch.allclose(pair(images, None)[0], whole, atol=1e-6)
    return sizes


def test_a_tower_that_convolves_and_stays_as_it_is_looks_at_a_few_at_a_time(
    configured: Configured, resnet: Path, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, still = batch()[0][:10], {"vision": "frozen", "text": "trained"}
    convolves, attends = (built(configured, folder, learns=still) for folder in (resnet, vit))
    assert looked_at(convolves, images, monkeypatch) == [4, 4, 2]
    assert looked_at(attends, images, monkeypatch) == [10]
    let_learn(convolves.model, ALL)
    assert looked_at(convolves, images, monkeypatch) == [10]


def test_padding_that_a_text_tower_masks_is_not_read(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = learner(configured(model="starter"))
    pair, encode, lengths = (
        Pair(learned.parts.model, low_precision=False, device="cpu"),
        learned.parts.model.encode_text,
        [0],
    )
    monkeypatch.setattr(pair.model, "encode_text", lambda some: lengths.append(some.shape[1]) or encode(some))
    for text, length in (("a red card", 16), ("card " * 20, 32), ("card " * 40, 77), ("card " * 200, 77)):
        tokens = learned.parts.tokenizer(["short", text])
        whole = torch.nn.functional.normalize(encode(tokens), dim=-1)
        assert torch.allclose(pair(None, tokens)[1], whole, atol=1e-6) and lengths[-1] == length


def test_a_projection_alone_learns(configured: Configured, vit: Path) -> None:
    pair = built(configured, vit, learns={"vision": "projection", "text": "projection"})
    assert set(gradients(pair, [batch()])) == {"visual.proj", "text_projection", "logit_scale"}


def test_a_projection_that_learns_is_not_shown_all_features(configured: Configured) -> None:
    model = learner(configured(model="starter", pretrained="bridge")).parts.model
    pair, images = Pair(model, low_precision=False, device="cpu"), torch.randn(2, 3, 224, 224)
    features = model.visual.trunk(images)
    shown: list[torch.Tensor] = []
    hide_features(model, 0.25)
    model.visual.head.residual[0].register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))

    def seen(vision: str, seed: int = 0) -> torch.Tensor:
        learns = {"vision": vision, "text": "frozen"}
        let_learn(model, learns)
        set_modes(model, learns, fixed_norms=True)
        torch.manual_seed(seed)
        with torch.no_grad():
            pair(images, None)
        return shown[-1]

    one, same, other = seen("projection"), seen("projection"), seen("projection", seed=1)
    hidden = (one == 0) & (features != 0)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert 0.2 < float(hidden.sum() / (features != 0).sum()) < 0.3
    assert torch.allclose(one[~hidden], features[~hidden] / 0.75, atol=1e-5), "as much in all as before"
    assert not torch.equal(hidden[0], hidden[1]), "others of each picture"
    assert torch.allclose(seen("frozen"), features, atol=1e-5)
    seen("projection")
    pair.eval()
    pair(images, None)
    assert torch.allclose(shown[-1], features, atol=1e-5), "what is measured is the whole model"


def test_a_projection_that_is_no_layer_hides_nothing(configured: Configured, vit: Path) -> None:
    model = learner(configured(model=str(vit))).parts.model
    with pytest.raises(ConfigError, match=r"projection_dropout: .* no layer .* leave it 0"):
        hide_features(model, 0.5)


def test_a_tower_without_a_projection_is_told(configured: Configured, resnet: Path) -> None:
    with pytest.raises(ConfigError, match="stages: vision: projection: the model's vision tower has none; set trained"):
        built(configured, resnet, learns={"vision": "projection", "text": "trained"})


def test_scales_biases_and_norms_do_not_decay(configured: Configured, vit: Path) -> None:
    pair = built(configured, vit)
    optimizer, _ = optimizer_for(pair.model, 0.1)
    matrices, others = optimizer.param_groups
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert any(one is pair.model.logit_scale for one in others["params"])
    assert all(one.ndim < 2 for one in others["params"])


def test_both_directions_are_told_apart_and_their_mean_is_open_clip_s_loss() -> None:
    from open_clip.loss import ClipLoss

    made = torch.Generator().manual_seed(1)
    images, texts = (torch.nn.functional.normalize(torch.randn(9, 8, generator=made), dim=-1) for _ in range(2))
    found = loss_of("clip")(images, texts, torch.tensor(14.0), None)
    assert float(found.total) == pytest.approx(float(ClipLoss()(images, texts, torch.tensor(14.0))), abs=1e-6)
    assert float(found.to_text) != pytest.approx(float(found.to_image), abs=1e-3)
    # One direction is the other's, with the sides changed.
    turned = loss_of("clip")(texts, images, torch.tensor(14.0), None)
    assert float(turned.to_text) == pytest.approx(float(found.to_image), abs=1e-6)


def test_the_loss_is_in_fp32_whatever_the_towers_compute_with(configured: Configured, vit: Path) -> None:
    low = Pair(learner(configured(model=str(vit))).parts.model, low_precision=True, device="cpu")
    seen, read, scale, _ = low(*batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_of("clip")(seen, read, scale, None)
    assert {seen.dtype, read.dtype, found.total.dtype} == {torch.float32}
    assert torch.equal(found.total, loss_of("clip")(seen, read, scale, None).total)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_low = torch.nn.functional.cross_entropy(scale * seen @ read.T, torch.arange(PAIRS))
    assert not torch.equal(in_low.float(), found.to_text), "similarities in bf16 would be told from these"
    with torch.no_grad():
        full = Pair(low.model, low_precision=False, device="cpu")(*batch())[0]
    assert 0 < float((full - seen.detach()).abs().max()) < 0.05


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_in_bf16_the_gradients_of_cached_embeddings_are_those_of_the_same_chunks_at_once(
    configured: Configured, vit: Path, loss: str
) -> None:
    config = configured(model=str(vit), loss=loss)
    pair = with_dropout(Pair(learner(config).parts.model, low_precision=True, device="cpu", biased=loss == "siglip"))
    let_learn(pair.model, ALL)
    set_modes(pair.model, ALL, fixed_norms=True)
    whole = with_graph(pair, in_chunks(4), loss)
    assert furthest(whole, gradients(pair, in_chunks(4), loss)) < 1e-5


def test_alignment_and_uniformity_are_wang_and_isola_s() -> None:
    unit = torch.eye(4)
    assert alignment(unit, unit) == 0
    assert alignment(unit, -unit) == pytest.approx(4.0)
    assert uniformity(unit) == pytest.approx(-4.0)
    assert uniformity(unit[:1].repeat(5, 1)) == pytest.approx(0.0)


def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradients(configured: Configured, vit: Path) -> None:
    pair = built(configured, vit)
    whole, kept = gradients(pair, [batch()]), kept_bytes(pair, *batch())
    said = checkpoint_gradients(pair, None, 8, 16, 32, "cpu")
    assert said == "gradient checkpointing: off, for the model has 1 M parameters"
    said = checkpoint_gradients(pair, True, 8, 16, 32, "cpu")
    assert "gradient checkpointing: on" in said
    saved = int(said.rpartition(": ")[2].removesuffix("% saved"))
    assert 20 < saved < 100
    assert kept_bytes(pair, *batch()) < 0.8 * kept
    assert furthest(whole, gradients(pair, [batch()])) < 1e-6
    assert checkpoint_gradients(pair, True, 8, 16, 32, "cpu") == said, "also where a stage before switched it on"


def test_a_large_model_checkpoints_its_gradients_by_itself(
    configured: Configured, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = built(configured, vit)
    monkeypatch.setattr("vlmdata.training.engine.memory.BY_DEFAULT_ABOVE", 100_000)
    kept = kept_bytes(pair, *batch())
    assert checkpoint_gradients(pair, None, 8, 16, 32, "cpu").startswith("gradient checkpointing: on, 1 M parameters; ")
    assert kept_bytes(pair, *batch()) < 0.8 * kept
    off = checkpoint_gradients(built(configured, vit), False, 8, 16, 32, "cpu")
    assert off == "gradient checkpointing: off, as the config says"


def test_a_tower_that_learned_before_and_is_frozen_now_has_no_gradient(configured: Configured, vit: Path) -> None:
    pair = built(configured, vit)
    learn_a_little(pair)
    let_learn(pair.model, {"vision": "trained", "text": "frozen"})
    Frozen(pair.model).verify()


def test_the_scale_is_bounded(configured: Configured, vit: Path) -> None:
    model = built(configured, vit).model
    with torch.no_grad():
        model.logit_scale.fill_(5.5)
    assert bounded_scale(model) == pytest.approx(100)
    assert float(model.logit_scale.detach().exp()) == pytest.approx(100)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    assert bounded_scale(model) == pytest.approx(float(torch.tensor(2.0).exp()))


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_model_with_its_adapters_added_in_says_what_it_said_with_them_beside_it(
    configured: Configured, request: pytest.FixtureRequest, kind: str
) -> None:
    folder = request.getfixturevalue(kind)
    adapted = learner(configured(model=str(folder), epochs=None, stages=[{"epochs": 1, "text": "lora"}]))
    plain = learner(configured(model=str(folder))).parts.model.eval()
    model, tokens = adapted.parts.model.eval(), batch()[1]
    made = torch.Generator().manual_seed(2)
    beside = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    assert len(beside) == adapted.adapters == 4, "query, key and value, what attention says, and two linear layers"
    before = model.encode_text(tokens).detach()
    for parameter in beside.values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=made) / 10)
    plain.load_state_dict(merged(model))
    said = model.encode_text(tokens).detach()
    assert float((said - before).abs().max()) > 1e-2
    assert torch.allclose(plain.encode_text(tokens), said, atol=1e-5)


def test_adapters_of_attention_take_no_dropout(configured: Configured, vit: Path) -> None:
    stages = {"epochs": None, "stages": [{"epochs": 1, "text": "lora"}]}
    with pytest.raises(ConfigError, match=r"lora\.dropout = 0\.1: the attention .* takes none; set 0"):
        learner(configured(model=str(vit), lora={"dropout": 0.1}, **stages))


def test_without_peft_there_are_no_adapters(configured: Configured, vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stages: text: lora needs peft, .*; install vlmdata\[train\]"):
        learner(configured(model=str(vit), epochs=None, stages=[{"epochs": 1, "text": "lora"}]))


def test_memory_that_a_tower_of_hugging_face_saves_is_measured_rightly(configured: Configured, tmp_path: Path) -> None:
    """open_clip switches one on whatever it is told; in a second stage it was on before."""
    pair = built(configured, hugging_face(tmp_path / "hf"))
    images, tokens = batch()[0], torch.randint(1, 8, (PAIRS, 16), generator=torch.Generator().manual_seed(5))
    kept = kept_bytes(pair, images, tokens)
    told = {checkpoint_gradients(pair, True, 8, 16, 32, "cpu") for _ in range(2)}
    assert len(told) == 1 and 20 < int(told.pop().rpartition(": ")[2].removesuffix("% saved")) < 100
    assert kept_bytes(pair, images, tokens) < 0.8 * kept
