"""When two models count as the same."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

import terrabench
from terrabench._identity import Unknown, identity

SCALE = 2.0


def double(images):
    return images * SCALE


def calls_double(images):
    return [double(image) for image in images]


def made(factor):
    return lambda images: images * factor


class Model:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, images):
        return images * self.factor


def test_equal_code_has_an_equal_identity():
    assert identity(made(1.0)) == identity(made(1.0))
    assert identity(Model(1.0)) == identity(Model(1.0))


def test_closures_attributes_and_arguments_count():
    assert identity(made(1.0)) != identity(made(2.0))
    assert identity(Model(1.0)) != identity(Model(2.0))
    assert identity(functools.partial(double, 1)) != identity(functools.partial(double, 2))


def test_globals_count_also_those_of_called_functions(monkeypatch):
    before = identity(calls_double)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert identity(calls_double) != before


def test_code_counts():
    assert identity(lambda x: x + 1) != identity(lambda x: x + 2)


def test_names_in_nested_functions_count(monkeypatch):
    def outer(images):
        return [(lambda image: image * SCALE)(image) for image in images]

    before = identity(outer)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert identity(outer) != before


def test_what_is_not_understood_gives_no_identity():
    with open(Path(__file__)) as file:
        with pytest.raises(Unknown, match="the variable `factor`"):
            identity(made(file))


def test_a_module_of_the_callers_counts_with_its_file_and_values(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_net.py").write_text("FACTOR = 1.0\ndef encode(x):\n    return x * FACTOR\n")
    import own_net

    monkeypatch.setitem(globals(), "own_net", own_net)
    model = lambda x: own_net.encode(x)  # noqa: E731
    first = identity(model)
    monkeypatch.setattr(own_net, "FACTOR", 2.0)
    second = identity(model)
    (tmp_path / "own_net.py").write_text("FACTOR = 2.0\ndef encode(x):\n    return x * FACTOR + 0\n")
    assert len({first, second, identity(model)}) == 3


def test_cycles_end():
    model = Model(1.0)
    model.itself = model
    assert identity(model) == identity(model)


def test_the_identity_is_the_same_in_another_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(terrabench.__file__).parent.parent)!r})\n"
        "from terrabench._identity import identity\n"
        "NAMES = {'b', 'a', 'c'}\n"
        "def model(x, also=frozenset('xyz'), pair=(1, 2)):\n"
        "    return x in {'p', 'q', 'r'} and x in NAMES and (1, 2) == pair\n"
        "print(identity(model))\n"
    )
    found = {subprocess.check_output([sys.executable, script], text=True) for _ in range(3)}
    assert len(found) == 1


def test_arrays_count_by_their_numbers():
    numpy = pytest.importorskip("numpy")
    weights = numpy.arange(6.0)
    before = identity(made(weights))
    assert identity(made(weights.copy())) == before
    weights[0] = 7
    assert identity(made(weights)) != before


class TestModules:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch", reason="needs torch")
        self.torch.manual_seed(0)

    def net(self):
        nn = self.torch.nn
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())

    def test_weights_and_buffers_count(self):
        net = self.net()
        before = identity(net)
        assert identity(net) == before
        net[1].running_mean[0] = 1.0
        after = identity(net)
        net[0].weight.data[0] += 1.0
        assert len({before, after, identity(net)}) == 3

    def test_structure_counts_where_weights_are_equal(self):
        net = self.net()
        before = identity(net)
        net[2] = self.torch.nn.GELU()
        assert identity(net) != before

    def test_training_mode_and_device_do_not_count(self):
        net = self.net()
        before = identity(net)
        net.eval()
        assert identity(net) == before

    def test_settings_and_code_of_own_modules_count(self):
        torch = self.torch

        class Own(torch.nn.Module):
            def __init__(self, pool):
                super().__init__()
                self._pool = pool
                self.inner = torch.nn.Linear(2, 2)

            def forward(self, x):
                return self.inner(x).mean() if self._pool == "mean" else self.inner(x).max()

        torch.manual_seed(0)
        mean = Own("mean")
        torch.manual_seed(0)
        top = Own("max")
        assert identity(mean) != identity(top)
        before = identity(mean)
        forward = Own.forward
        Own.forward = lambda self, x: forward(self, x) * 2
        assert identity(mean) != before

    def test_settings_of_libraries_modules_count(self):
        torch = self.torch
        few = torch.nn.MultiheadAttention(8, 2)
        many = torch.nn.MultiheadAttention(8, 4)
        many.load_state_dict(few.state_dict())
        assert identity(few) != identity(many)

    def test_a_function_counts_with_the_module_it_calls(self):
        net = self.net()

        def model(images):
            return net(images)

        before = identity(model)
        net[0].bias.data[0] += 1.0
        assert identity(model) != before

    def test_bfloat16_weights_count(self):
        net = self.net().to(self.torch.bfloat16)
        before = identity(net)
        net[0].bias.data[0] += 1.0
        assert identity(net) != before
