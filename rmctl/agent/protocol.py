"""What the agent and the portal say to each other: tagged msgspec structs in msgpack binary frames.

Every message may be repeated and each is idempotent. `decode_from_agent` and `decode_from_portal` raise
`msgspec.DecodeError` (of which `msgspec.ValidationError` is one) for a frame that is not of this protocol.
Times are Unix seconds as float, sizes are bytes, cpu is millicores, GPUs are thousandths of a card.
"""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

VERSION = 1
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_LOG_CHUNK_BYTES = 256 * 1024
MAX_RESULT_BYTES = 256 * 1024

CLOSE_UNAUTHORISED = 4401
CLOSE_REPLACED = 4409

# What a frame names in lists that the portal looks up together with those of other nodes: none may break them all.
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
HeldState = Literal["preparing", "running", "ended"]
ReportKind = Literal["started", "ended"]
EndReason = Literal[
    "exited",
    "time_limit",
    "memory_limit",
    "storage_limit",
    "pids_limit",
    "stopped",
    "lost",
    "refused",
    "result_invalid",
]


class Held(NamedTuple):
    """One placement that the agent has on its disk, until its report and its log are acknowledged."""

    placement: Id
    token: Id
    state: HeldState


class Checkpoint(NamedTuple):
    """When a running task last said that it has written a checkpoint."""

    placement: Id
    token: Id
    at: float


class GpuShare(NamedTuple):
    """Part of a card given to an assignment."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    milli: int


class GpuSample(NamedTuple):
    index: int  # type: ignore[assignment]
    utilisation_percent: float
    memory_used_bytes: int
    temperature_celsius: float
    power_watts: float


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    index: int
    model: str
    memory_bytes: int
    uuid: str = ""


class Isolation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the agent found, by trying, that it can enforce on this node; `none` where it cannot."""

    filesystem: str = "none"
    cpu: str = "none"
    memory: str = "none"
    pids: str = "none"
    storage: str = "none"
    time: str = "agent"
    user: str = ""


class Holdings(msgspec.Struct, frozen=True, tag="holdings", omit_defaults=True):
    """What lies ready on the node: full names of container images, and bytes of datasets by name (0: not known yet).

    It is part of the inventory, and sent alone when it has changed since.
    """

    images: list[str] = []
    datasets: dict[str, int] = {}


class Inventory(msgspec.Struct, frozen=True, omit_defaults=True):
    hostname: str
    os: str
    arch: str
    python: str
    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    gpus: list[Gpu] = []
    network_megabits_per_second: int = 0
    cpu_model: str = ""
    cpu_flags: list[str] = []
    runtimes: list[str] = msgspec.field(default_factory=lambda: ["process"])
    isolation: Isolation = Isolation()
    # The lowest compute capability of its cards, such as 8.6.
    gpu_compute: str = ""
    gpu_driver: str = ""
    # How its cards (nvlink) and the node itself (infiniband) are joined to others.
    interconnects: list[str] = []
    # What its Python has installed, by the names of the distributions.
    packages: list[str] = []
    holdings: Holdings = msgspec.field(default_factory=lambda: Holdings())


class Telemetry(msgspec.Struct, frozen=True, omit_defaults=True):
    at: float
    cpu_percent: float = 0.0
    load1: float = 0.0
    memory_total: int = 0
    memory_used: int = 0
    storage_total: int = 0
    storage_used: int = 0
    network_receive_bytes_per_second: float = 0.0
    network_send_bytes_per_second: float = 0.0
    gpus: list[GpuSample] = []
    tasks: int = 0


class SavedFiles(msgspec.Struct, frozen=True):
    """What an earlier attempt has saved for this member: a tar.gz that the portal keeps, told by its digest."""

    sha256: str
    size: int


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One placement to run. `time_limit_seconds` 0 means no limit; `secrets` never reach the journal."""

    placement: int
    token: int
    job: int
    attempt: int
    name: str
    tenant: str
    command: list[str]
    group: str = "main"
    rank: int = 0
    size: int = 1
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    cpu_millicores: int = 100
    cpu_limit_millicores: int = 1000
    memory_bytes: int = 128 * 1024 * 1024
    storage_bytes: int = 256 * 1024 * 1024
    pids: int = 256
    gpus: list[GpuShare] = []
    time_limit_seconds: float = 0.0
    grace_seconds: float = 10.0
    image: str | None = None
    bundle: str | None = None
    inputs: dict[str, Any] = {}
    # To be in RM_CHECKPOINT_DIR before it starts.
    saved: SavedFiles | None = None
    # Names of those that it reads, wherever they are.
    datasets: list[str] = []
    # Names of the variables in `secrets` whose values the log must not show.
    masked: list[str] = []


class Stop(msgspec.Struct, frozen=True, omit_defaults=True):
    """End a placement: SIGTERM, then SIGKILL after `grace_seconds`. Ignored when it is not held."""

    placement: int
    token: int
    grace_seconds: float = 10.0
    reason: str = ""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task used, as far as the node can tell; 0 where it cannot."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_peak_bytes: int = 0
    storage_bytes: int = 0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fact about a placement. An ended report says how it ended: `exit_code` as a shell shows it (128 + the
    signal when a signal ended it, and then `signal` too), None when the task left none. `checkpoint_at` is when it
    last said that it has written a checkpoint."""

    placement: int
    token: int
    kind: ReportKind
    at: float
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: EndReason | None = None
    detail: str = ""
    result: Any = None
    log_size: int = 0
    usage: Usage | None = None
    enforced: dict[str, str] = {}
    checkpoint_at: float | None = None


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """First frame of a connection."""

    version: int
    inventory: Inventory
    held: list[Held]


class Beat(msgspec.Struct, frozen=True, tag="beat", omit_defaults=True):
    """`checkpoints` has the latest of every running task that has one, whether the portal knows it or not."""

    telemetry: Telemetry
    held: list[Held]
    checkpoints: list[Checkpoint] = []


class Reports(msgspec.Struct, frozen=True, tag="reports", omit_defaults=True):
    """A batch of reports; the portal answers with `ReportsAck` of the same sequence once it is durable."""

    sequence: int
    items: list[Report]


class Log(msgspec.Struct, frozen=True, tag="log", omit_defaults=True):
    """Bytes of a task's output, untouched, from `offset`; `final` when the task ended and no byte follows."""

    placement: int
    token: int
    offset: int
    data: bytes
    final: bool = False


class Welcome(msgspec.Struct, frozen=True, tag="welcome", omit_defaults=True):
    node: int
    name: str
    beat_seconds: float = 2.0
    lease_seconds: float = 15.0


class Desired(msgspec.Struct, frozen=True, tag="desired", omit_defaults=True):
    """What the agent lacks (`start`) and what must go (`stop`). What is already held is not started again."""

    start: list[Assignment] = []
    stop: list[Stop] = []


class ReportsAck(msgspec.Struct, frozen=True, tag="reports_ack", omit_defaults=True):
    """The batch is stored. `refused` names the (placement, token) pairs that are not the job's newest:
    the agent ends and forgets them."""

    sequence: int
    refused: list[tuple[int, int]] = []


class LogAck(msgspec.Struct, frozen=True, tag="log_ack", omit_defaults=True):
    """The portal has stored the first `size` bytes of the log; sending goes on from there."""

    placement: int
    token: int
    size: int


FromAgent = Hello | Beat | Reports | Log | Holdings
FromPortal = Welcome | Desired | ReportsAck | LogAck

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_portal: msgspec.msgpack.Decoder[FromPortal] = msgspec.msgpack.Decoder(FromPortal)


def encode(message: FromAgent | FromPortal) -> bytes:
    """The message as one binary frame."""
    return _encoder.encode(message)


def decode_from_agent(frame: bytes) -> FromAgent:
    """Read a frame that an agent sent (for the portal)."""
    return _from_agent.decode(frame)


def decode_from_portal(frame: bytes) -> FromPortal:
    """Read a frame that the portal sent (for the agent)."""
    return _from_portal.decode(frame)
