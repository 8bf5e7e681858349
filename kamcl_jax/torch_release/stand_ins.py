"""Stand-ins for third-party packages that the PyTorch original imports and a machine may lack.

They have the names, shapes and order of the packages' parameters and compute the same, operation by
operation; they leave out pretrained weights and all else that a comparison does not need. This
module imports PyTorch, which is optional: import it where PyTorch is known to be there.
"""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

WORD_WIDTH, HIDDEN_WIDTH = 620, 2400
"""The widths of the published skip-thoughts model."""

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels, stride


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps f32[B, C, H, W] to f32[B, channels, H / stride, W / stride]."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + self.downsample(x))


class ResNet18(nn.Module):
    """The parts of torchvision's ResNet-18, which the original calls one by one; random weights."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels_in = 64
        for number, (channels, stride) in enumerate(_STAGES, start=1):
            first = BasicBlock(channels_in, channels, stride)
            self.add_module(
                f"layer{number}", nn.Sequential(first, BasicBlock(channels, channels, 1))
            )
            channels_in = channels
        self.fc = nn.Linear(channels_in, 1000)


GATES = ("r", "i", "n")


class GRUCell(nn.Module):
    """One step of the skip-thoughts GRU: biases on the input's side only."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        # In the package's order, which the original's momentum goes by.
        for gate in GATES:
            self.add_module(f"weight_i{gate}", nn.Linear(input_size, hidden_size))
        for gate in GATES:
            self.add_module(f"weight_h{gate}", nn.Linear(hidden_size, hidden_size, bias=False))

    def forward(
        self, x: torch.Tensor, state: torch.Tensor, masks: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Takes the input f32[B, input_size] and the state f32[B, hidden_size] to the next state.

        The dropout's masks are named by what they drop and the gate: `xr`, `hr`, `xi` and so on.
        """
        drop = masks or {}
        from_x = {gate: _dropped(x, drop.get(f"x{gate}")) for gate in GATES}
        from_state = {gate: _dropped(state, drop.get(f"h{gate}")) for gate in GATES}
        reset = torch.sigmoid(self.weight_ir(from_x["r"]) + self.weight_hr(from_state["r"]))
        keep = torch.sigmoid(self.weight_ii(from_x["i"]) + self.weight_hi(from_state["i"]))
        new = torch.tanh(self.weight_in(from_x["n"]) + reset * self.weight_hn(from_state["n"]))
        return (1 - keep) * new + keep * state


def _dropped(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return values if mask is None else values * mask


class GRU(nn.Module):
    """The skip-thoughts GRU over a sequence, from a state of zeros."""

    def __init__(self, input_size: int, hidden_size: int, dropout: float = 0.0):
        super().__init__()
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.gru_cell = GRUCell(input_size, hidden_size)

    def forward(
        self, x: torch.Tensor, max_length: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns all states of f32[B, T, input_size] as f32[B, steps, hidden_size], and the last.

        It takes `max_length` steps if that is given.
        """
        steps = x.shape[1] if max_length is None else int(max_length)
        state = x.new_zeros(x.shape[0], self.hidden_size)
        masks = self._masks(x, state)
        states = []
        for step in range(steps):
            state = self.gru_cell(x[:, step], state, masks)
            states.append(state)
        return torch.stack(states, dim=1), state

    def _masks(self, x: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """Draws the variational dropout of one sequence: the same in all of its steps."""
        if not self.training or not self.dropout:
            return None
        keep = 1 - self.dropout
        like = {"x": x[:, 0], "h": state}
        return {
            f"{of}{gate}": torch.empty_like(values).bernoulli_(keep).div_(keep)
            for of, values in like.items()
            for gate in GATES
        }


class BayesianUniSkip(nn.Module):
    """The parts of the skip-thoughts encoder that the original's subclass of it builds on."""

    def __init__(
        self,
        dir_st: str,
        vocab: list[str],
        save: bool = False,
        dropout: float = 0.0,
        fixed_emb: bool = False,
    ):
        """Builds it with random weights; `dir_st` and `save` are the package's and not used.

        The embedding has a row for each word of `vocab` after row 0, the padding.
        """
        super().__init__()
        self.embedding = nn.Embedding(len(vocab) + 1, WORD_WIDTH, padding_idx=0)
        self.embedding.weight.requires_grad_(not fixed_emb)
        self.rnn = GRU(WORD_WIDTH, HIDDEN_WIDTH, dropout)

    def _process_lengths(self, tokens: torch.Tensor) -> list[int]:
        return (tokens != 0).sum(dim=1).tolist()


def modules(package: str) -> dict[str, types.ModuleType]:
    """Returns a package's stand-in modules under the names that they have in `sys.modules`.

    Of packages other than torchvision and skipthoughts the original uses nothing in what we run, so
    that an empty module does.
    """
    if package == "skipthoughts":
        return {package: _module(package, BayesianUniSkip=BayesianUniSkip)}
    if package == "torchvision":
        # The original imports the deeper ones and builds none.
        builders = {"resnet18": _resnet18, "resnet50": None, "resnet101": None}
        resnet = _module(f"{package}.models.resnet", **builders)
        models = _module(f"{package}.models", resnet=resnet)
        return {m.__name__: m for m in (_module(package, models=models), models, resnet)}
    return {package: _module(package)}


def _rnn_params(_encoder: Any) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {}
    for suffix, width in (("", 2 * HIDDEN_WIDTH), ("x", HIDDEN_WIDTH)):
        shapes[f"encoder_W{suffix}"] = (WORD_WIDTH, width)
        shapes[f"encoder_U{suffix}"] = (HIDDEN_WIDTH, width)
        shapes[f"encoder_b{suffix}"] = (width,)
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


SKIP_THOUGHTS_LOADERS: dict[str, Callable[[Any], Any]] = {
    "_load_dictionary": lambda encoder: dict.fromkeys(["UNK", *encoder.vocab], 0),
    "_load_emb_params": lambda _encoder: np.zeros((1, WORD_WIDTH), np.float32),
    "_load_rnn_params": _rnn_params,
}
"""Methods that replace those of the real package's encoder that read its published files, gigabytes
long. Every word, the unknown one too, is at row 0 of a table of one row."""


def _module(name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(attributes)
    return module


def _resnet18(*_args: Any, **_options: Any) -> ResNet18:
    """Builds the network; pretrained weights may be asked for, and none are loaded."""
    return ResNet18()
