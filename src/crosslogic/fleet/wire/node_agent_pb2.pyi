from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STARTING: _ClassVar[Status]
    ACTIVE: _ClassVar[Status]
    DRAINING: _ClassVar[Status]
    DEAD: _ClassVar[Status]
STATUS_UNSPECIFIED: Status
STARTING: Status
ACTIVE: Status
DRAINING: Status
DEAD: Status

class Hardware(_message.Message):
    __slots__ = ("gpu_type", "gpu_count", "vram_total_mb", "cpu_count", "memory_total_mb")
    GPU_TYPE_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    VRAM_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    CPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    gpu_type: str
    gpu_count: int
    vram_total_mb: int
    cpu_count: int
    memory_total_mb: int
    def __init__(self, gpu_type: _Optional[str] = ..., gpu_count: _Optional[int] = ..., vram_total_mb: _Optional[int] = ..., cpu_count: _Optional[int] = ..., memory_total_mb: _Optional[int] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("prefill_tokens_per_s", "decode_tokens_per_s")
    PREFILL_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    def __init__(self, prefill_tokens_per_s: _Optional[float] = ..., decode_tokens_per_s: _Optional[float] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("endpoint_url", "models", "status", "backend", "engine_version", "agent_version", "region", "cloud", "zone", "instance_type", "spot", "hardware", "capacity", "api_key", "deployment_id")
    ENDPOINT_URL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    CLOUD_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    SPOT_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    endpoint_url: str
    models: _containers.RepeatedScalarFieldContainer[str]
    status: Status
    backend: str
    engine_version: str
    agent_version: str
    region: str
    cloud: str
    zone: str
    instance_type: str
    spot: bool
    hardware: Hardware
    capacity: Capacity
    api_key: str
    deployment_id: str
    def __init__(self, endpoint_url: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., status: _Optional[_Union[Status, str]] = ..., backend: _Optional[str] = ..., engine_version: _Optional[str] = ..., agent_version: _Optional[str] = ..., region: _Optional[str] = ..., cloud: _Optional[str] = ..., zone: _Optional[str] = ..., instance_type: _Optional[str] = ..., spot: _Optional[bool] = ..., hardware: _Optional[_Union[Hardware, _Mapping]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., api_key: _Optional[str] = ..., deployment_id: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("requests_running", "requests_waiting", "kv_cache_used_ratio", "tokens_per_second")
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USED_RATIO_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    requests_running: int
    requests_waiting: int
    kv_cache_used_ratio: float
    tokens_per_second: float
    def __init__(self, requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., kv_cache_used_ratio: _Optional[float] = ..., tokens_per_second: _Optional[float] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("status", "load", "vram_free_mb")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    VRAM_FREE_MB_FIELD_NUMBER: _ClassVar[int]
    status: Status
    load: Load
    vram_free_mb: int
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., vram_free_mb: _Optional[int] = ...) -> None: ...

class NodeState(_message.Message):
    __slots__ = ("node_id", "status", "heartbeat_interval_s", "wanted_version")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    WANTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    status: Status
    heartbeat_interval_s: float
    wanted_version: str
    def __init__(self, node_id: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., heartbeat_interval_s: _Optional[float] = ..., wanted_version: _Optional[str] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("index", "name", "temperature_c", "utilisation_ratio", "vram_total_mb", "vram_used_mb")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_RATIO_FIELD_NUMBER: _ClassVar[int]
    VRAM_TOTAL_MB_FIELD_NUMBER: _ClassVar[int]
    VRAM_USED_MB_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    temperature_c: float
    utilisation_ratio: float
    vram_total_mb: int
    vram_used_mb: int
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., temperature_c: _Optional[float] = ..., utilisation_ratio: _Optional[float] = ..., vram_total_mb: _Optional[int] = ..., vram_used_mb: _Optional[int] = ...) -> None: ...

class MetricsRequest(_message.Message):
    __slots__ = ("load", "gpus", "engine_restarts", "disk_free_mb", "capacity", "engine_version", "engine", "oom_events", "vram_fragmentation_ratio", "rebalance_recommended")
    class EngineEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LOAD_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_MB_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    OOM_EVENTS_FIELD_NUMBER: _ClassVar[int]
    VRAM_FRAGMENTATION_RATIO_FIELD_NUMBER: _ClassVar[int]
    REBALANCE_RECOMMENDED_FIELD_NUMBER: _ClassVar[int]
    load: Load
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    engine_restarts: int
    disk_free_mb: int
    capacity: Capacity
    engine_version: str
    engine: _containers.ScalarMap[str, float]
    oom_events: int
    vram_fragmentation_ratio: float
    rebalance_recommended: bool
    def __init__(self, load: _Optional[_Union[Load, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., engine_restarts: _Optional[int] = ..., disk_free_mb: _Optional[int] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., engine_version: _Optional[str] = ..., engine: _Optional[_Mapping[str, float]] = ..., oom_events: _Optional[int] = ..., vram_fragmentation_ratio: _Optional[float] = ..., rebalance_recommended: _Optional[bool] = ...) -> None: ...

class SpotEvictionRequest(_message.Message):
    __slots__ = ("cloud", "action", "at")
    CLOUD_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    cloud: str
    action: str
    at: str
    def __init__(self, cloud: _Optional[str] = ..., action: _Optional[str] = ..., at: _Optional[str] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("reason", "finished")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    reason: str
    finished: bool
    def __init__(self, reason: _Optional[str] = ..., finished: _Optional[bool] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("at", "source", "text")
    AT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    at: str
    source: str
    text: str
    def __init__(self, at: _Optional[str] = ..., source: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class LogBatch(_message.Message):
    __slots__ = ("lines", "dropped")
    LINES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    dropped: int
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., dropped: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_der",)
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    def __init__(self, csr_der: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate_pem", "ca_pem")
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    ca_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
