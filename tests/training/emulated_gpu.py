"""A GPU for machines without one: its tensors compute on the CPU, say that they are on `cuda:0`, and refuse the company
of others.

It finds what a GPU would: a tensor left on the CPU, a value drawn from the wrong generator, a branch for GPUs that does
not work. It cannot tell what is special to a GPU's own kernels, nor how fast anything is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

GPU = torch.device("cuda", 0)


class OnGpu(Tensor):
    """A tensor of the emulated GPU, around one with its values.

    Torch's C++ takes it for a tensor on the CPU, so that autograd works as ever; Python sees a GPU's.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        plain: list[Tensor] = []
        inner_args = [_inner(value, plain) for value in args]
        inner_kwargs = {name: _inner(value, plain) for name, value in given.items()}
        if plain and func is not torch.ops.aten.copy_.default:
            shapes = [tuple(t.shape) for t in plain]
            raise RuntimeError(f"{func}: expected all tensors on the same device, but on the CPU are {shapes}")
        if _draws(func):
            inner_kwargs["generator"] = _one_draw(given.get("generator") or _Generators.of_gpu)
        made = func(*inner_args, **inner_kwargs)
        if torch.Tag.inplace_view in func.tags:
            return return_and_correct_aliasing(func, args, given, made)
        if func._schema.is_mutable:
            return None if made is None else given.get("out", args[0])
        if isinstance(made, list | tuple):
            return type(made)(OnGpu(value) if isinstance(value, Tensor) else value for value in made)
        return OnGpu(made) if isinstance(made, Tensor) else made


def _inner(value: Any, plain: list[Tensor]) -> Any:
    """The values of a GPU's tensors; what lies on the CPU, but for scalars, which may come from anywhere, is noted."""
    if isinstance(value, OnGpu):
        return value.inner
    if isinstance(value, list | tuple):
        return [_inner(v, plain) for v in value]
    if isinstance(value, Tensor) and value.dim():
        plain.append(value)
    return value


def _one_draw(generator: torch.Generator) -> torch.Generator:
    """For one operation: a GPU's numbers are not the same in one draw as in several, unlike a CPU's."""
    seed = torch.randint(2**62, (), generator=generator)
    return _Generators.real().manual_seed(int(seed))


@functools.cache
def _draws(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)


class _Generators:
    of_gpu = torch.Generator()
    real = torch.Generator


class _Generator(torch.Generator):
    """Of either device, with a CPU's numbers."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        return _Generators.real.__new__(cls, "cpu")


class _Moves(TorchFunctionMode):
    """What moves or creates tensors on the emulated GPU: torch without CUDA would refuse it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in (Tensor.to, Tensor.cpu):
            return _moved(args[0], "cpu" if func is Tensor.cpu else None, [*args[1:], *given.values()])
        if _is_gpu(given.get("device")):
            return _up(func(*args, **given | {"device": torch.device("cpu")}))
        return func(*args, **given)


class _OfEngine(TorchDispatchMode):
    """What autograd's C++ creates for itself, zeros say, is where the gradients are."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        return OnGpu(made) if type(made) is Tensor and not any(isinstance(value, Tensor) for value in args) else made


def _is_gpu(device: object) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


def _moved(x: Tensor, device: str | None, asked: Sequence[Any]) -> Tensor:
    """`Tensor.to` with a device, a dtype, both, or another tensor that has them."""
    dtype = x.dtype
    for value in asked:
        if isinstance(value, Tensor):
            device, dtype = value.device.type, value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, str | torch.device):
            device = torch.device(value).type
    if device not in (None, x.device.type):
        x = _up(x) if device == "cuda" else x.inner.detach().clone()  # type: ignore[attr-defined]
    return x if dtype == x.dtype else torch.ops.aten._to_copy.default(x, dtype=dtype)


def _up(x: Tensor) -> Tensor:
    return OnGpu(x.detach().clone()).requires_grad_(x.requires_grad)


def _by_engine(function: Callable[..., Any]) -> Callable[..., Any]:
    def inside(of: Any, *args: Any, **kwargs: Any) -> Any:
        with _OfEngine() if isinstance(of, OnGpu) else nullcontext():
            return function(of, *args, **kwargs)

    return inside


@contextmanager
def emulated_gpu() -> Iterator[torch.device]:
    """The device, while torch takes this machine for one with a GPU."""
    with pytest.MonkeyPatch.context() as patch, _Moves():
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.autograd, "grad", _by_engine(torch.autograd.grad))
        patch.setattr(torch.autograd, "backward", _by_engine(torch.autograd.backward))
        # Tensors of the inference mode cannot be wrapped.
        patch.setattr(torch._C, "_InferenceMode", lambda mode: torch.no_grad() if mode else nullcontext())
        patch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: False)  # it is not in this build
        for name, value in {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "is_bf16_supported": lambda: False,
            "manual_seed_all": _Generators.of_gpu.manual_seed,
            "get_rng_state": lambda device=None: _Generators.of_gpu.get_state(),
            "set_rng_state": lambda state, device=None: _Generators.of_gpu.set_state(state),
            "get_rng_state_all": lambda: [_Generators.of_gpu.get_state()],
            "set_rng_state_all": lambda states: _Generators.of_gpu.set_state(states[0]),
            "mem_get_info": lambda device=None: (2**33, 2**33),
            "max_memory_allocated": lambda device=None: 2**20,
            "empty_cache": lambda: None,
            "synchronize": lambda device=None: None,
        }.items():
            patch.setattr(torch.cuda, name, value)
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a module's parameters become other objects
        try:
            yield GPU
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
