"""Statistics of the offsets of deformable layers during training."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from detector.layers.deformable import Deformable, deformable_layers
from detector.option_types import PositiveInt
from detector.structures import Batch
from detector.training.module import DetectionModule, NonFiniteLossError

if TYPE_CHECKING:
    from detector.training.offset_warnings import OffsetWatch

Statistics = dict[str, dict[str, float]]  # by layer, then by name


class OffsetMeter:
    """A meter of the deformable layers of a model, for the passes between `start` and `stop`.

    It reuses what the layers compute. Only `stop` waits for the device, and there is no cost outside the two
    calls. Between them a compiled model runs eagerly, because its graphs do not call hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = deformable_layers(model)
        self._active = ExitStack()
        self._passes: dict[str, list[tuple[int, dict[str, Tensor]]]] | None = None
        self._gradients: dict[str, Tensor] = {}

    @property
    def is_active(self) -> bool:
        return self._passes is not None

    def start(self) -> None:
        assert not self.is_active
        self._passes, self._gradients = {name: [] for name in self.layers}, {}
        for name, layer in self.layers.items():
            predicted: list[Tensor] = []
            record_pass = partial(_record_pass, self._passes[name], predicted)
            for handle in (
                layer.offset.register_forward_hook(partial(_keep, predicted)),
                layer.register_forward_hook(record_pass, with_kwargs=True),
            ):
                self._active.enter_context(handle)
        self._active.enter_context(torch.compiler.set_stance("force_eager"))

    def record_gradients(self) -> None:
        """Record the current gradient norms of the offset branches. A frozen branch has none."""
        for name, layer in self.layers.items():
            gradients = [p.grad for p in layer.offset.parameters() if p.grad is not None]
            if gradients:
                self._gradients[name] = torch.nn.utils.get_total_norm(gradients).detach()

    def stop(self) -> Statistics:
        """Return the `statistics` of each layer that ran, and its `gradient_norm` if it was recorded.

        Statistics are means over the output positions of the layer.
        """
        passes, gradients = self._passes or {}, self._gradients
        self.cancel()
        statistics = {name: _mean(recorded) for name, recorded in passes.items() if recorded}
        for name in statistics.keys() & gradients.keys():
            statistics[name]["gradient_norm"] = gradients[name]
        return _to_floats(statistics)

    def cancel(self) -> None:
        """Discard the measurements. May be called again."""
        self._active.close()
        self._passes, self._gradients = None, {}


class OffsetLog(Callback):
    """A callback that logs `offsets/<layer>/<statistic>` of each deformable layer; see `OffsetMeter`.

    It does so every n optimizer steps and at the last step of each epoch, over all accumulated batches of the
    first device. Gradients are those of all devices, before clipping. `OffsetWatch` warns.

    `latest` holds the last logged values; it stays empty if no layer is deformable.
    """

    def __init__(self, *, every_n_steps: PositiveInt) -> None:
        self.latest: dict[str, float] = {}
        self._every = every_n_steps
        self._meter: OffsetMeter | None = None
        self._watch: OffsetWatch | None = None
        self._step = 0  # the step that is measured, from 1
        self._batch: Batch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DetectionModule)
        meter = OffsetMeter(pl_module.model)
        if not meter.layers or not trainer.is_global_zero:
            return
        from detector.training.offset_warnings import OffsetWatch  # models without offsets do without

        self._meter = meter
        self._watch = OffsetWatch(
            meter.layers,
            total_steps=pl_module.length.total_steps,
            lr_multiplier=pl_module.optimization.offset_lr_multiplier,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Start measuring at the first batch of a step, through all batches that the step accumulates."""
        self._batch = batch
        if self._meter is None or self._meter.is_active:
            return
        self._step = trainer.global_step + 1
        if self._step % self._every == 0 or self._step % pl_module.length.steps_per_epoch == 0:
            self._meter.start()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        if self._meter is not None and self._meter.is_active:
            self._meter.record_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._meter is None or not self._meter.is_active or trainer.global_step < self._step:
            return
        assert self._watch is not None
        statistics = self._meter.stop()
        self.latest = {
            f"offsets/{layer}/{name}": value
            for layer, values in statistics.items()
            for name, value in values.items()
        }
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, step=self._step)
        self._watch.check(statistics, step=self._step)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self._cancel()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Check the offsets after a non-finite loss, as they may have caused it.

        Uses what the step has measured so far, or else, on a single device, runs its batch again (several
        devices would wait for each other).
        """
        if self._meter is not None and isinstance(exception, NonFiniteLossError):
            assert self._watch is not None
            if not self._meter.is_active and self._batch is not None and trainer.world_size == 1:
                self._meter.start()
                with torch.no_grad(), trainer.precision_plugin.forward_context():
                    pl_module.model.loss(self._batch)
            self._watch.check(self._meter.stop(), step=self._step)
        self._cancel()

    def _cancel(self) -> None:
        self._batch = None
        if self._meter is not None:
            self._meter.cancel()


def _keep(outputs: list[Tensor], branch: nn.Module, inputs: tuple[Any, ...], predicted: Tensor) -> None:
    outputs.append(predicted.detach())


def _record_pass(
    passes: list[tuple[int, dict[str, Tensor]]],
    outputs: list[Tensor],
    layer: Deformable,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    output: Tensor,
) -> None:
    predicted = outputs.pop()
    inputs = inspect.signature(layer.forward).bind(*args, **keywords).args
    positions = predicted[:, 0].numel()
    if positions > 0:  # e.g. zero if there were no proposals
        with torch.no_grad():
            passes.append((positions, layer.statistics(inputs, predicted)))


def _mean(passes: list[tuple[int, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Average over passes, weighted by output positions: a head runs on maps of many sizes."""
    total = sum(positions for positions, _ in passes)
    return {
        name: torch.stack([statistics[name] * (positions / total) for positions, statistics in passes]).sum()
        for name in passes[0][1]
    }


def _to_floats(statistics: dict[str, dict[str, Tensor]]) -> Statistics:
    """Convert all tensors with one wait for the device, not one per number."""
    values = [value.float() for layer in statistics.values() for value in layer.values()]
    numbers = iter(torch.stack(values).tolist() if values else [])
    return {layer: {name: next(numbers) for name in names} for layer, names in statistics.items()}
