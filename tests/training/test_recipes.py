"""Recipes and runs, against the papers' numbers, torch.optim's own schedulers and optimizers, torch.amp, timm's groups
and plain loops: none of it is asked of the code that it is about."""

import dataclasses
import inspect
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import relative
from torch.nn import functional as F
from torch.optim import lr_scheduler, swa_utils

import keras_impl
import keras_impl.train
import torch_impl
import torch_impl.train
from common import weights as canonical
from common.arch import get
from common.init import randomised
from common.parity.rules import Rule
from common.training import loop, recipe, record
from common.training import run as training
from common.training.recipe import Recipe
from common.training.scores import Scores

IMPLS = {"torch": torch_impl, "keras": keras_impl}
PLAIN = Recipe(Rule("SGD", 0.1), precision="float64")


def row(**changes):
    return get("cifar_resnet20", depths=(1, 1), widths=(16, 24), num_classes=5, **changes)


def trainer(framework, how: Recipe, arch=None, weights=None):
    arch = arch or row()
    dtype = how.precision if framework == "keras" else "float64" if how.precision == "float64" else "float32"
    weights = randomised(arch) if weights is None else weights
    return IMPLS[framework].train.Trainer(IMPLS[framework].create_model(arch, dtype=dtype, weights=weights), how)


def batches(n: int, dtype="float64", size: int = 6):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((size, 3, 10, 9)).astype(dtype), rng.integers(0, 5, size)) for _ in range(n)]


def learned(t) -> dict[str, np.ndarray]:
    return {n: w for n, w in t.weights().items() if not n.endswith(("running_mean", "running_var"))}


# -- rates


# recipe: the paper's first epoch of each rate, momentum, Nesterov's, weight decay, batch, epochs
PAPERS = {
    # He et al. 2015, section 4.2: 64,000 steps of 128 of 50,000, the rate divided at 32,000 and 48,000 (82 * 391 =
    # 32,062 and 123 * 391 = 48,093)
    "cifar": ({0: 0.1, 82: 0.01, 123: 0.001}, 0.9, False, 1e-4, 128, 164),
    "cifar110": ({1: 0.1, 82: 0.01, 123: 0.001}, 0.9, False, 1e-4, 128, 164),
    # section 3.4 and fb.resnet.torch: 90 epochs of batches of 256, divided at 30 and 60
    "imagenet": ({0: 0.1, 30: 0.01, 60: 0.001}, 0.9, False, 1e-4, 256, 90),
    # Xie et al. 2016, sections 5 and 5.3
    "resnext": ({0: 0.1, 30: 0.01, 60: 0.001}, 0.9, False, 1e-4, 256, 90),
    "resnext_cifar": ({0: 0.1, 150: 0.01, 225: 0.001}, 0.9, True, 5e-4, 128, 300),
    # Zagoruyko and Komodakis 2016, section 3
    "wrn": ({0: 0.1, 60: 0.02, 120: 0.004, 160: 0.0008}, 0.9, True, 5e-4, 128, 200),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_recipe_has_the_papers_numbers(name):
    rates, momentum, nesterov, decay, batch, epochs = PAPERS[name]
    r = recipe.RECIPES[name]
    found = (r.rule.kind, r.rule.momentum, r.rule.nesterov, r.rule.weight_decay, r.batch, r.epochs)
    assert found == ("SGD", momentum, nesterov, decay, batch, epochs)
    assert not (r.smoothing or r.clip or r.ema or r.accumulate > 1) and r.decay_norms and r.precision == "float32"
    for epoch in range(min(rates), epochs):
        expected = rates[max(e for e in rates if e <= epoch)]
        for step in (epoch * 391, epoch * 391 + 390):
            assert r.rate(step, 391) == pytest.approx(expected, rel=1e-12), epoch


def test_110_layers_begin_with_a_tenth_for_400_steps():
    """He et al. 2015, section 4.2: 0.01 until the training error is below 80 %, about 400 steps. Here it rises."""
    r = recipe.RECIPES["cifar110"]
    assert r.rate(0, 391) == pytest.approx(0.01 + 0.09 / 391)
    assert r.rate(195, 391) == pytest.approx(0.01 + 0.09 * 196 / 391)
    assert [r.rate(390, 391), r.rate(391, 391)] == pytest.approx([0.1, 0.1])


def schedulers(r: Recipe, per_epoch: int) -> list[float]:
    """The rates of all steps by torch.optim's schedulers, which count steps here."""
    total, ramp = r.epochs * per_epoch, round(r.warmup * per_epoch)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=r.rule.rate)
    if r.schedule == "steps":
        milestones = [math.ceil(d * total) - ramp for d in r.drops]
        after = lr_scheduler.MultiStepLR(optimizer, milestones, r.factor)
    elif r.schedule == "cosine":
        after = lr_scheduler.CosineAnnealingLR(optimizer, total - ramp)
    else:
        after = lr_scheduler.ConstantLR(optimizer, 1.0)
    if ramp:
        begin = r.warmup_from + (1 - r.warmup_from) / ramp
        rising = lr_scheduler.LinearLR(optimizer, begin, 1.0, ramp - 1)
        after = lr_scheduler.SequentialLR(optimizer, [rising, after], [ramp])
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        after.step()
    return rates


OWN = {
    "constant": Recipe(epochs=4, schedule="constant"),
    "cosine": Recipe(epochs=7, schedule="cosine"),
    "cosine, warm-up from a fifth": Recipe(epochs=7, schedule="cosine", warmup=2.5, warmup_from=0.2),
    "steps, warm-up": Recipe(epochs=9, warmup=2.0, drops=(1 / 3, 0.5, 0.8), factor=0.3),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR's, of itself
@pytest.mark.parametrize("name", [*recipe.RECIPES, *OWN])
def test_rates_are_those_of_torchs_schedulers(name):
    r = OWN.get(name) or recipe.RECIPES[name]
    expected = schedulers(r, 4)
    assert [r.rate(step, 4) for step in range(r.epochs * 4)] == pytest.approx(expected, rel=1e-9)


def test_half_a_cosine_by_hand():
    """Loshchilov and Hutter 2016, equation 5: 3/4 of the rate at a third, 1/4 at two thirds: no straight line."""
    r = Recipe(Rule("SGD", 0.4), epochs=6, schedule="cosine")
    assert [r.rate(s, 10) for s in (0, 20, 30, 40)] == pytest.approx([0.4, 0.3, 0.2, 0.1])


# -- steps


def test_defaults_of_the_rules_are_pytorchs():
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        theirs = inspect.signature(kind).parameters
        assert (Rule("Adam", 1.0).beta_1, Rule("Adam", 1.0).beta_2) == theirs["betas"].default == (0.9, 0.999)
        assert Rule("Adam", 1.0).epsilon == theirs["eps"].default == 1e-8


RULES = {
    "SGD": (Rule("SGD", 0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True, weight_decay=0.01)),
    "Adam": (Rule("Adam", 1e-3, weight_decay=0.1, beta_1=0.7, beta_2=0.9, epsilon=1e-6),
             lambda p: torch.optim.Adam(p, 1e-3, (0.7, 0.9), 1e-6, 0.1)),
    "AdamW": (Rule("AdamW", 1e-3, weight_decay=0.1, beta_1=0.7, beta_2=0.9, epsilon=1e-6),
              lambda p: torch.optim.AdamW(p, 1e-3, (0.7, 0.9), 1e-6, 0.1)),
}  # fmt: skip


@pytest.mark.parametrize("framework", IMPLS)
@pytest.mark.parametrize("name", RULES)
def test_a_trainers_steps_are_those_of_a_plain_loop_with_torch_optim(framework, name):
    """With parts of 3, 3 and 2, whose gradients are weighed by their examples, and clipped together."""
    rule, theirs = RULES[name]
    parts = [(0, 3), (3, 6), (6, 8)] if name == "SGD" else [(0, 8)]
    t = trainer(framework, dataclasses.replace(PLAIN, rule=rule, accumulate=len(parts), clip=0.7, batch=8))
    net = torch_impl.create_model(row(), dtype="float64", weights=randomised(row())).train()
    optimizer = theirs(net.parameters())
    for step, (x, y) in enumerate(batches(4, size=8)):
        rate = rule.rate * (1, 1, 0.3, 0.3)[step]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        whole = hits = 0.0
        for i, j in parts:
            logits = net(torch.from_numpy(x[i:j]))
            loss = F.cross_entropy(logits, torch.from_numpy(y[i:j]), reduction="sum") / 8
            loss.backward()
            whole, hits = whole + float(loss.detach()), hits + int((logits.argmax(1).numpy() == y[i:j]).sum())
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.7)
        optimizer.step()
        assert t.step(x, y, rate) == (pytest.approx(whole, rel=1e-10), hits)
    expected = torch_impl.export_weights(net)
    assert max(relative(expected[n], w) for n, w in t.weights().items()) < 1e-8


@pytest.mark.parametrize("framework", IMPLS)
def test_no_decay_of_norms_and_biases_is_timms(framework, referees):
    """One step with decay and one without differ by rate * decay * weight where timm's groups decay, else not at all.
    With biases in the convolutions, too."""
    from timm.optim import param_groups_weight_decay

    arch = row(conv_bias=True)
    before = randomised(arch)
    decayed = {}
    for decay in (0.0, 0.25):
        t = trainer(framework, dataclasses.replace(PLAIN, rule=Rule("SGD", 0.1, weight_decay=decay), decay_norms=False),
                    arch, before)  # fmt: skip
        t.step(*batches(1)[0], 0.1)
        decayed[decay] = learned(t)
    net = torch_impl.create_model(arch)
    without, _ = param_groups_weight_decay(net, 0.25)
    spared = {id(p) for p in without["params"]}
    # scales and shifts of 5 norms, biases of 5 convolutions and the classifier
    assert without["weight_decay"] == 0 and len(spared) == 16
    for name, p in net.named_parameters():
        expected = 0 if id(p) in spared else 0.1 * 0.25 * before[name].astype(np.float64)
        moved = decayed[0.0][name] - decayed[0.25][name]
        assert np.abs(moved - expected).max() < 1e-12, name
        assert (id(p) in spared) == (p.ndim == 1)


@pytest.mark.parametrize("framework", IMPLS)
def test_the_average_of_weights_is_torchs(framework):
    """torch.optim.swa_utils, running statistics too: 9 parts of the old and 1 of the new after each step."""
    t = trainer(framework, dataclasses.replace(PLAIN, ema=0.9))
    net = torch_impl.create_model(row(), dtype="float64", weights=randomised(row()))
    theirs = swa_utils.AveragedModel(net, avg_fn=swa_utils.get_ema_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(net)  # the first takes the weights as they are
    for x, y in batches(4):
        t.step(x, y, 0.1)
        torch_impl.import_weights(net, IMPLS[framework].export_weights(t.model))
        theirs.update_parameters(net)
    now, average = IMPLS[framework].export_weights(t.model), torch_impl.export_weights(theirs.module)
    assert max(relative(average[n], w) for n, w in t.weights().items()) < 1e-12
    assert max(relative(now[n], w) for n, w in t.weights().items()) > 1e-2
    with t.averaged():
        inside = IMPLS[framework].export_weights(t.model)
    assert all(canonical.same(inside[n], w) for n, w in t.weights().items())
    assert all(canonical.same(now[n], w) for n, w in IMPLS[framework].export_weights(t.model).items())


@pytest.mark.parametrize("framework", IMPLS)
def test_gradients_in_float16_are_clipped_after_their_scale_is_out(framework):
    """A clipped step of plain SGD is rate * clip long, whatever the loss' scale."""
    how = Recipe(Rule("SGD", 0.1), clip=0.05, precision="mixed_float16")
    for scale in (2.0**4, 2.0**10):
        t = trainer(framework, how)
        t.scale.value = scale
        before = learned(t)
        t.step(*batches(1, "float32")[0], 0.1)
        assert t.steps == 1
        length = math.sqrt(sum(np.square(w.astype("float64") - before[n]).sum() for n, w in learned(t).items()))
        assert length == pytest.approx(0.1 * 0.05, rel=1e-3)


def test_steps_in_float16_are_those_of_torch_amp():
    """torch.amp's documented order: scale, backward, unscale, clip, step, update; a scale that is too high at first."""
    how = Recipe(Rule("SGD", 0.05, momentum=0.9), clip=0.3, precision="mixed_float16")
    t = trainer("torch", how)
    t.scale.value = 2.0**30
    net = torch_impl.create_model(row(), weights=randomised(row())).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, backoff_factor=0.5, growth_interval=2000)
    lost = 0
    for x, y in batches(30, "float32"):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            logits = net(torch.from_numpy(x).to(memory_format=torch.channels_last))
        scaler.scale(F.cross_entropy(logits.float(), torch.from_numpy(y))).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
        before = t.steps
        scaler.step(optimizer)
        scaler.update()
        t.step(x, y, 0.05)
        lost += t.steps == before
        assert t.scale.value == scaler.get_scale()
    assert 0 < lost < 25 and t.scale.value < 2.0**30
    expected = torch_impl.export_weights(net)
    assert max(relative(expected[n], w) for n, w in t.weights().items()) < 1e-4


@pytest.mark.parametrize("framework", IMPLS)
def test_the_loss_scale_goes_on(framework):
    how = Recipe(Rule("SGD", 0.05), precision="mixed_float16")
    a, b = (trainer(framework, how) for _ in range(2))
    a.scale.value, a.scale.good = 2.0**7, 1998
    b.restore(a.weights(), a.state())
    assert (b.scale.value, b.scale.good) == (2.0**7, 1998)
    for x, y in batches(2, "float32"):
        b.step(x, y, 0.05)
    assert (b.scale.value, b.scale.good) == (2.0**8, 0)


# -- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(its folder, what each step was given and gave, copies of the checkpoints of its epochs, what was measured)."""
    folder, steps, copies, measured = tmp_path_factory.mktemp("run"), [], [], []
    how = recipe.get("small", batch=200, epochs=3, ema=0.8, rate=0.02)
    made, data = training.plan("cifar_resnet20", "digits", how, {"depths": (1, 1, 1)}, seed=3)
    data.test = data.test.subset(np.arange(100))
    record.new(folder / "r", made)
    accuracies = iter([0.3, 0.6, 0.5])

    def measure(forward, tests):
        x = next(tests.epoch())[0]
        measured.append((x, forward(x)))
        return Scores(1.0, next(accuracies), 1.0, np.eye(10))

    own = torch_impl.train.Trainer.step

    def step(self, x, labels, rate, seed=0):
        found = own(self, x, labels, rate, seed)
        steps.append({"n": len(x), "rate": rate, "seed": seed, "loss": found[0], "right": found[1]})
        return found

    def listener(what, progress):
        if what == "epoch":
            copies.append(shutil.copy(folder / "r" / "last.safetensors", folder / f"{progress.epoch}.safetensors"))

    with pytest.MonkeyPatch.context() as m:
        m.setattr(record, "measure", measure)
        m.setattr(torch_impl.train.Trainer, "step", step)
        loop.train(folder / "r", data=data, listener=listener, limit=11)  # stops in the second epoch
        loop.train(folder / "r", data=data, listener=listener, limit=6)  # and in the third
        loop.train(folder / "r", data=data, listener=listener)
    return folder / "r", steps, copies, measured


def test_each_step_of_a_run_has_its_rate_and_its_masks(run):
    rates = schedulers(training.Run.load(run[0]).recipe, 8)
    assert [s["n"] for s in run[1]] == 3 * [*[200] * 7, 38]  # 1,438 digits
    assert [s["rate"] for s in run[1]] == pytest.approx(rates, rel=1e-9)
    assert len({s["seed"] for s in run[1]}) == 24
    rows = record.read_metrics(run[0])
    assert [r["rate"] for r in rows] == pytest.approx([rates[int(r["step"]) - 1] for r in rows], rel=1e-9)


def test_an_epochs_figures_are_of_its_own_examples(run):
    rows = [r for r in record.read_metrics(run[0]) if "test_loss" in r]
    assert [(r["epoch"], r["step"]) for r in rows] == [(1, 8), (2, 16), (3, 24)]
    for e, r in enumerate(rows):
        of = run[1][8 * e : 8 * e + 8]
        assert r["train_loss"] == pytest.approx(sum(s["loss"] * s["n"] for s in of) / 1438, rel=1e-12)
        assert r["train_accuracy"] == pytest.approx(sum(s["right"] for s in of) / 1438, rel=1e-12)
    assert [r["test_accuracy"] for r in rows] == [0.3, 0.6, 0.5]


def test_the_best_is_the_epoch_that_measured_best(run):
    """The second of three, also where the run has been stopped and gone on with since."""
    best, *epochs = (canonical.load(p)[1] for p in (run[0] / "best.safetensors", *run[2]))
    same = [all(canonical.same(best[n], of[n]) for n in best) for of in epochs]
    assert same == [False, True, False]


def test_what_is_measured_is_the_average_of_weights(run):
    for path, (x, logits) in zip(run[2], run[3], strict=True):
        arch, average, _ = canonical.load(path)
        net = torch_impl.create_model(arch, weights=average).eval()
        with torch.no_grad():
            assert relative(net(torch.from_numpy(x)).numpy(), logits) < 1e-5
            state = canonical.load_training(path)[0]
            torch_impl.import_weights(net, {n: state[f"{n} now"] for n in average})
            assert relative(net(torch.from_numpy(x)).numpy(), logits) > 1e-2


@pytest.mark.parametrize("classes", [10, 7])
def test_a_run_begins_with_all_of_a_checkpoint(tmp_path, classes):
    """But for a head of other classes, which is drawn; and where the head fits, with that, too."""
    arch = get("cifar_resnet20", depths=(1, 2, 1), in_channels=1, num_classes=classes)
    given = {n: w.astype("float32") for n, w in randomised(arch).items()}
    canonical.save(tmp_path / "given.safetensors", arch, given)
    how = recipe.get("small", epochs=1)
    run, data = training.plan(
        "cifar_resnet20", "digits", how, {"depths": (1, 2, 1)}, init=str(tmp_path / "given.safetensors")
    )
    found = training.start(run)
    assert [n for n in found if found[n].shape != given[n].shape or not np.array_equal(found[n], given[n])] == (
        [] if classes == 10 else ["fc.weight", "fc.bias"]
    )
    t = loop.trainer_of(run, data)
    assert all(canonical.same(w, found[n]) for n, w in t.weights().items())
