"""The small Celery application that test_celery.py runs workers of; the environment says where and under which names.

CELERY_BROKER, CELERY_RESULTS   URLs of the broker and of the result backend
CELERY_NAME                     of the default queue, and in the names of all else that is declared
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_ready
from kombu import Exchange, Queue

NOTES: list[Any] = []
"""What the tasks of this process noted."""


def make_app(broker: str, results: str, name: str) -> Celery:
    """The application, configured for one test run."""
    made = Celery("conformance", broker=broker, backend=results)
    made.conf.update(
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_transport_options={"confirm_publish": True},
        control_exchange=f"{name}.control",
        event_exchange=f"{name}.events",
        event_queue_prefix=f"{name}.events",
        result_exchange=f"{name}.results",
        result_expires=600,
        task_default_queue=name,
        task_queues=[Queue(name, Exchange(name, "direct"), name, max_priority=9),
                     Queue(f"{name}.topic", Exchange(f"{name}.topic", "topic"), "work.#")],
        task_routes={"conformance.routed": {"exchange": f"{name}.topic", "routing_key": "work.any"}},
        task_default_priority=4,
        task_publish_retry_policy={"max_retries": 50, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.3},
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
    )
    declare_tasks(made)
    return made


def declare_tasks(made: Celery) -> None:
    @made.task(shared=False, name="conformance.add")
    def add(x: int, y: int) -> int:
        return x + y

    @made.task(shared=False, name="conformance.total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @made.task(shared=False, name="conformance.echo", bind=True)
    def echo(self: Any, value: Any) -> dict[str, Any]:
        info = self.request.delivery_info
        return {"value": value, "priority": info["priority"], "routing_key": info["routing_key"],
                "redelivered": info["redelivered"], "headers": (self.request.headers or {}).get("mine")}

    @made.task(shared=False, name="conformance.routed")
    def routed() -> str:
        return "routed"

    @made.task(shared=False, name="conformance.fail")
    def fail() -> None:
        raise ValueError("on purpose")

    @made.task(shared=False, name="conformance.flaky", bind=True, max_retries=5)
    def flaky(self: Any, failures: int) -> int:
        if self.request.retries < failures:
            raise self.retry(countdown=0.05, exc=OSError("not yet"))
        retries: int = self.request.retries
        return retries

    @made.task(shared=False, name="conformance.note")
    def note(value: Any) -> None:
        NOTES.append(value)

    @made.task(shared=False, name="conformance.notes")
    def notes() -> list[Any]:
        return NOTES

    @made.task(shared=False, name="conformance.hold", bind=True, acks_late=True)
    def hold(self: Any, started: str, released: str) -> bool:
        """Tells that it has started by one file, and returns when another is there; whether it came again."""
        Path(started).touch()
        while not Path(released).exists():
            time.sleep(0.02)
        again: bool = self.request.delivery_info["redelivered"]
        return again

    @made.task(shared=False, name="conformance.refuse", bind=True, acks_late=True)
    def refuse(self: Any) -> None:
        from celery.exceptions import Reject
        NOTES.append("refused")
        raise Reject("on purpose", requeue=not self.request.delivery_info["redelivered"])


@worker_ready.connect
def keep_ticking(sender: Any, **_: Any) -> None:
    """A worker with a solo pool sleeps for up to a second over work in hand; a timer that ticks keeps it awake."""
    sender.hub.call_repeatedly(0.05, lambda: None)


if "CELERY_BROKER" in os.environ:
    app = make_app(os.environ["CELERY_BROKER"], os.environ["CELERY_RESULTS"], os.environ["CELERY_NAME"])
