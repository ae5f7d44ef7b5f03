"""Gates: what each module says, what is read of it, and that a detector is as it was afterwards."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn

import yolo_attn
from yolo_attn import YoloAttnError, record_gates
from yolo_attn.inside.frozen import frozen
from yolo_attn.modules._gates import gated_by
from yolo_attn.registry import registry

NAMES = yolo_attn.list_modules()
KIND = {n: registry.get_entry(n).kind for n in NAMES}


def build(name: str, **options: Any) -> nn.Module:
    """A module of 16 channels, or a block of 16 to 16, with weights that hide nothing."""
    entry = registry.get_entry(name)
    takes = entry.binding.takes
    given = [[16, 16]] if entry.kind == "fusion" else [16] * ("channels" in takes or "c1" in takes) + [16] * ("c2" in takes)
    torch.manual_seed(0)
    m = entry.cls(*given, **options).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3 + 0.1)
    return m


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def given_to(name: str, x: torch.Tensor) -> Any:
    return [x, x.flip(0) * 0.5] if registry.get_entry(name).kind == "fusion" else x


def hooks(m: nn.Module) -> int:
    return sum(len(c._forward_hooks) + len(c._forward_pre_hooks) for c in m.modules())


# ---------------------------------------------------------------- what modules say


def test_every_registered_module_says_what_its_gate_is():
    for name in NAMES:
        cls = registry.get_entry(name).cls
        own = next((c for c in cls.__mro__ if "gates" in vars(c) or "forward" in vars(c)), None)
        assert own is not None and "gates" in vars(own), f"{name}: no 'gates' beside its formula"


@pytest.mark.parametrize(
    ("name", "start"),
    [(n, start) for n in NAMES if KIND[n] in ("channel", "spatial", "both", "fusion")
     for start in ("paper", "identity")[: 1 + hasattr(registry.get_entry(n).cls, "identity")]],
)
def test_what_a_module_says_is_what_it_does(name, start):
    """Of one image the mean is the gate itself, so that a module frozen at it returns what it returned."""
    m = build(name, **({"start": start} if start == "identity" else {}))
    x = given_to(name, sample(1, 16, 9, 12))
    said = gated_by(m)
    assert said is not None
    with torch.no_grad():
        expected = m(x)
        with record_gates(m) as gates:
            assert torch.equal(m(x), expected)
        if isinstance(said, str):
            own = [k for k in gates if k.partition("/")[0] == ""]
            assert not own and gates.without[""] == said
            return
        assert len(gates) == len(said) and hooks(m) == 0
        with frozen(m, gates):
            assert torch.allclose(m(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        for gate in gates.values():
            if gate.bounds is not None:
                low, high = gate.bounds
                assert low - 1e-5 <= float(gate.least.min()) and float(gate.most.max()) <= high + 1e-5
        # and held at one number, it does not see the input
        numbers = dict.fromkeys(gates, 0.37)
        with frozen(m, numbers), record_gates(m) as still:
            m(x)
            m(given_to(name, sample(1, 16, 9, 12, seed=5)))
    for gate in still.values():
        assert float(gate.spread.max()) < 1e-4
        if said[0].read.__name__ != "read":  # of a softmax, equal scores give equal shares
            assert abs(gate.number - 0.37) < 1e-4


# ---------------------------------------------------------------- what is recorded


class Planted(nn.Module):
    """A user's gate that is a known function of the image: of each channel, of each position, or of neither.

    Its class says nothing about it.
    """

    def __init__(self, kind: str = "channel") -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(()))

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "channel":
            return x.mean((2, 3), keepdim=True).sigmoid()
        return x.mean(1, keepdim=True).sigmoid() if self.kind == "spatial" else (x * 3).sin().sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(self.gate(x)) if self.kind == "channel" else x * self.gate(x)  # in place, as users write


class Not(nn.Module):
    """A user's module whose output is no product."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


@pytest.fixture
def registered():
    for cls in (Planted, Not):
        yolo_attn.register(cls.__name__, cls)
    yield
    for cls in (Planted, Not):
        yolo_attn.unregister(cls.__name__)


class Net(nn.Module):
    """Rows as the hosts have them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def test_statistics_over_batches_are_those_of_all_images_at_once():
    m, x = build("SEAttention"), sample(23, 16, 7, 5)
    x[:, 3] = 0  # a channel whose gate cannot be told
    truth = m.gate(m.fc2(m.act(m.fc1(x.mean((2, 3), keepdim=True))))).detach().double()
    with torch.no_grad(), record_gates(Net(m), keep=10) as gates:
        for part in x.split(4):
            m(part)
    gate = gates["model.0"]
    others = [c for c in range(16) if c != 3]
    assert (gate.row, gate.images, gate.axes, gate.how) == (0, 23, "channel", "declared")
    assert gate.location == "row 0 (SEAttention)" and gate.channels.shape == (10, 16)
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(gate.mean[others], truth.mean(0)[others], **near)
    torch.testing.assert_close(gate.spread[others], truth.std(0, unbiased=False)[others], **near)
    torch.testing.assert_close(gate.least[others], truth.amin(0)[others], **near)
    torch.testing.assert_close(gate.most[others], truth.amax(0)[others], **near)
    torch.testing.assert_close(gate.channels[:, others].double(), truth[:10, others, 0, 0], **near)
    assert gate.channels[:, 3].isnan().all()
    assert float(gate.mean[3]) == pytest.approx(float(truth[:, others].mean()), rel=1e-5)


def test_a_map_is_kept_in_cells_and_what_varies_within_one_is_spread():
    m, x = build("CBAM"), sample(5, 16, 64, 80)
    with torch.no_grad(), record_gates(m) as gates:
        for part in x.split(2):
            m(part)
        maps = []
        handle = m.gate.register_forward_hook(lambda _m, _a, y: maps.append(y))
        m(x[:, :, :32])  # another size falls into the same cells
        handle.remove()
    spatial = gates["/spatial"]
    assert spatial.mean.shape == spatial.spread.shape == (1, 20, 20) and spatial.maps.shape == (10, 20, 20)
    assert float(spatial.spread.mean()) > float(spatial.maps.std(0).mean()) > 0
    torch.testing.assert_close(spatial.maps[5:].mean((1, 2)), maps[1].mean((1, 2, 3)), rtol=0.05, atol=0)


def test_saturated_and_dead():
    m = build("SEVar2")
    with torch.no_grad():
        m.weight.zero_()
        m.weight.view(-1)[:4] = torch.tensor([-60.0, 60.0, 3.0, 0.5])
    x = sample(6, 16, 4, 4).abs() + 0.5
    with torch.no_grad(), record_gates(m) as gates:
        m(x)
    gate = gates[""]
    assert gate.dead.flatten().nonzero().tolist() == [[0]]
    assert gate.saturated.flatten().nonzero().tolist() == [[1]]
    assert gate.still(0.02) > 0.8 and float(gate.mean.view(-1)[9]) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["channel", "spatial", "value"])
def test_a_users_gate_is_recognised_by_its_ratio_and_said_to_be(kind, registered):
    net = Net(nn.Conv2d(3, 8, 1), Planted(kind), Not())
    x = sample(4, 3, 12, 9)
    with torch.no_grad(), record_gates(net) as gates:
        net(x)
        truth = Planted(kind).gate(net.model[0](x))
    assert list(gates) == ["model.1"] and gates["model.1"].axes == kind
    assert gates["model.1"].how == "recognised by its ratio" and "no product" in gates.without["model.2"]
    torch.testing.assert_close(gates["model.1"].mean.float(), truth.mean(0), rtol=1e-4, atol=1e-4)
    still = {"model.1": 0.25}
    with torch.no_grad(), frozen(net, still):
        y = net.model[:2](x)
    torch.testing.assert_close(y, net.model[0](x) * 0.25)
    with torch.no_grad(), pytest.raises(YoloAttnError, match=r"row 2 \(Not\): cannot be frozen"), frozen(net, {"model.2": 1.0}):
        net(x)


def test_a_ratio_that_stops_to_be_constant_is_no_gate(registered, monkeypatch):
    net = Net(Planted("channel"))
    with torch.no_grad(), record_gates(net) as gates:
        net(sample(2, 8, 5, 5))
        assert list(gates) == ["model.0"]
        monkeypatch.setattr(Planted, "forward", lambda self, x: x + 1)
        net(sample(2, 8, 5, 5))
        net(sample(2, 8, 5, 5))
    assert not gates and "no product" in gates.without["model.0"]


def test_a_subclass_with_another_forward_has_not_said_what_its_gate_is():
    class Mine(registry.get_entry("SEAttention").cls):
        def forward(self, x):
            return x * x.mean(1, keepdim=True).sigmoid()

    assert gated_by(Mine(8)) is None and isinstance(gated_by(build("SEAttention")), tuple)


# ---------------------------------------------------------------- nothing stays behind


def test_hooks_are_gone_after_an_error_and_in_nested_use():
    net = Net(build("CBAM"), build("SEAttention"), build("EPSA"))
    x = sample(2, 16, 6, 6)
    before = pickle.dumps(net)
    with torch.no_grad(), record_gates(net) as outer:
        with record_gates(net) as inner, frozen(net, {"model.1": 0.5}):
            net(x)
        net(x)
    assert hooks(net) == 0 and inner["model.1"].images == 2 and outer["model.1"].images == 4
    assert float(inner["model.1"].spread.max()) < 1e-6  # a record sees the constant, whichever was entered first
    for bad in (lambda: net(x[:, :3]), lambda: 1 / 0):
        with pytest.raises((RuntimeError, ZeroDivisionError)), record_gates(net), frozen(net, outer):
            bad()
        assert hooks(net) == 0
    with pytest.raises(YoloAttnError, match="has 16 channels, and the constant 3"), frozen(net, {"model.1": torch.ones(3, 1, 1)}):
        net(x)
    with pytest.raises(YoloAttnError, match=r"no gate is called 'model.9'.*model.0/channel, model.0/spatial, model.1"), frozen(net, {"model.9": 1}):
        pass
    assert hooks(net) == 0 and len(pickle.dumps(net)) == len(before)
    with pytest.raises(KeyError, match="several gates: model.0/channel, model.0/spatial"):
        outer["model.0"]


def test_a_copy_that_a_host_makes_is_recorded_and_left_as_it_was():
    net = Net(build("CBAM"), build("SEAttention"))
    x = sample(2, 16, 6, 6)
    with torch.no_grad(), record_gates(net) as gates, frozen(net, {"model.1": 0.5}):
        other = copy.deepcopy(net)
        y = other(x)
        stored = pickle.loads(pickle.dumps(other))
        assert not torch.equal(stored(x), y)
    assert gates["model.1"].images == 2 and gates["model.1"].number == pytest.approx(0.5)
    assert hooks(other) == hooks(net) == 0 and gates["model.0/channel"].images == 2
    assert torch.equal(stored(x), net(x))


def test_threads_do_not_see_one_another():
    net = Net(build("SEAttention"))
    x = sample(3, 16, 6, 6)
    expected, meanwhile, go, done = net(x), [], threading.Event(), threading.Event()

    def other() -> None:
        with torch.no_grad(), record_gates(net) as gates:
            go.wait(10)
            meanwhile.append(net(x[:1]))
            meanwhile.append(gates["model.0"].images)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with torch.no_grad(), record_gates(net) as mine, frozen(net, {"model.0": 0.1}):
        go.set()
        assert done.wait(10)
        net(x)
    thread.join()
    assert torch.allclose(meanwhile[0], expected[:1]) and meanwhile[1] == 1
    assert mine["model.0"].images == 3 and hooks(net) == 0


def test_what_is_no_network_is_refused_in_one_line():
    script = torch.jit.script(nn.Conv2d(3, 8, 1))
    for given, words in (("best.pt", "not from str"), (script, "TorchScript")):
        with pytest.raises(YoloAttnError, match=words), record_gates(given):
            pass
    with record_gates(Net(build("SEAttention"))) as gates, pytest.raises(YoloAttnError, match="no image was recorded"):
        _ = gates["model.0"].mean
