"""Plays the answers in `readings` back in place of NVIDIA's binding; what they are is in `readings/README.md`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

READINGS = Path(__file__).parent / "readings"


class RecordedNvml:
    """A binding to the machine in `readings/NAME.json`, at the moment `moment`, from 0."""

    def __init__(self, name: str) -> None:
        text = (READINGS / f"{name}.json").read_text(encoding="utf-8")
        self._answers = json.loads(text.replace('"SELF"', str(os.getpid())))["answers"]
        self.moment = 0
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def __getattr__(self, function: str) -> Callable[..., Any]:
        def ask(*arguments: object) -> Any:
            by_arguments = self._answers.get(function)
            if by_arguments is None:
                raise pynvml.NVMLError_FunctionNotFound
            whole = ",".join(map(str, arguments))
            first = whole.split(",")[0]
            moments = next(by_arguments[key] for key in (whole, first, "*") if key in by_arguments)
            answer = moments[min(self.moment, len(moments) - 1)]
            if isinstance(answer, dict) and "error" in answer:
                raise getattr(pynvml, answer["error"])
            return _structured(answer)

        return ask


def _structured(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_structured(part) for part in answer]
    return SimpleNamespace(**answer) if isinstance(answer, dict) else answer
